"""Which images are in which part of a dataset.

By a hash of its file's bytes (`draw`, `choose`) an image stays where it is, whatever images are added.
"""

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


def stratified_indices(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` sorted indices drawn at random, each class in proportion to its size (largest remainder)."""
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = count * sizes / len(labels)
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: count - shares.sum()]] += 1
    places = (np.flatnonzero(labels == label) for label in classes)
    drawn = [rng.permutation(each)[:share] for each, share in zip(places, shares, strict=True)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def fold_numbers(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each image, int64 (n), 0 to `folds` - 1: drawn by `seed`, equal in size and in classes to one image.

    `labels` int64 (n) has at least as many images as there are folds.
    """
    rng = np.random.default_rng((seed, folds))
    # Images one class after the other, at random within it, are dealt out like cards.
    order = np.lexsort((rng.random(len(labels)), labels))
    dealt = np.empty(len(labels), np.int64)
    dealt[order] = np.arange(len(labels)) % folds
    return dealt
