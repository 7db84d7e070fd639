"""A split in which an image stays where it is, whatever images are added: by a hash of its file's bytes."""

import hashlib

import numpy as np


def draw(digests: np.ndarray, seed: int, part: str) -> np.ndarray:
    """A number from 0 to 1 for each file by its digest, uint8 (n, 16), whatever other files there are."""
    key = f"{seed} {part}".encode()
    draws = (hashlib.blake2b(each.tobytes(), digest_size=8, key=key).digest() for each in digests)
    return np.frombuffer(b"".join(draws), ">u8") / 2.0**64


def choose(drawn: np.ndarray, labels: np.ndarray, size: float | int) -> np.ndarray:
    """bool (n): which images are taken out, by the numbers `drawn` for them, the lowest first.

    A `size` below 1 is a share of each class, about as many as it says: each image is taken or not whatever others
    there are, but that of two images of a class or more one is taken, and one is left. Else it is the number of images,
    of each class in proportion (largest remainder).
    """
    taken = np.zeros(len(drawn), bool)
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    places = [each[np.argsort(drawn[each], kind="stable")] for each in places]
    counts = np.array([int((drawn[each] < size).sum()) for each in places], dtype=int)
    if size < 1:
        most = np.array([len(each) - 1 for each in places], dtype=int)
        counts = np.clip(counts, np.minimum(most, 1), most)
    elif len(drawn):
        exact = min(size, len(drawn)) * np.array([len(each) for each in places]) / len(drawn)
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: round(exact.sum()) - counts.sum()]] += 1
    for each, number in zip(places, counts.tolist(), strict=True):
        taken[each[:number]] = True
    return taken
