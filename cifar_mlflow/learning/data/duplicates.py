"""Images that are the same, to the pixel or nearly so: a score on what a network has trained on says nothing."""

from collections.abc import Iterator, Sequence

import numpy as np

HASH_BITS = 64
NEIGHBOURS = 8  # in the order of the hashes, with which an image is compared
MOST_BITS = 4  # in which the hashes of near duplicates differ
MOST_DISTANCE = 6.0  # levels of 256 by which their pixels differ on average


def same_groups(digests: np.ndarray) -> list[np.ndarray]:
    """The positions that share a digest, of uint8 (n, 16), where more than one do, in the order of the first."""
    _, first, counts = np.unique(digests, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(first.ravel(), kind="stable")
    ends = np.cumsum(counts)
    found = [order[end - count : end] for end, count in zip(ends, counts, strict=True) if count > 1]
    return sorted(found, key=lambda same: int(same[0]))


def perceptual_hashes(pixels: np.ndarray) -> np.ndarray:
    """Difference hash, uint64 (n), of images uint8 (n, height, width, channels).

    Of 8 x 9 gray squares, each bit says whether one is brighter than that to its left. Source: Krawetz, "Kind of like
    that", The Hacker Factor Blog (2013).
    """
    height, width = pixels.shape[1:3]
    lines = [pixels[:, start:end].sum(axis=1, dtype=np.uint32) for start, end in _divided(height, 8)]
    gray = np.stack(lines, axis=1).sum(axis=-1)  # of as many lines in each square of a row: no need to divide
    squares = [gray[..., start:end].sum(axis=-1) / (end - start) for start, end in _divided(width, 9)]
    bits = np.diff(np.stack(squares, axis=-1)) > 0
    return np.packbits(bits.reshape(len(pixels), -1), axis=1).view(">u8")[:, 0].astype(np.uint64)


def _divided(length: int, number: int) -> list[tuple[int, int]]:
    """Start and end of so many parts of a line, which share pixels where it cannot be divided."""
    return [(part * length // number, -(-(part + 1) * length // number)) for part in range(number)]


def near_pairs(hashes: np.ndarray, images: Sequence[np.ndarray], groups: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of positions of images of two `groups` (n) that are almost, but not quite, the same.

    Their `hashes` (see above) differ in at most `MOST_BITS`, and their pixels by at most `MOST_DISTANCE`. They are
    looked for among the next in the order of the hashes, read from each of their bytes on, so that twice the images
    take twice the time: of many that are all alike, not every pair is found.
    """
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, HASH_BITS, 8):
        turned = hashes << np.uint64(start) | hashes >> np.uint64((HASH_BITS - start) % HASH_BITS)
        order = np.argsort(turned, kind="stable")
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            one, other = order[:-step], order[step:]
            alike = (np.bitwise_count(hashes[one] ^ hashes[other]) <= MOST_BITS) & (groups[one] != groups[other])
            found.append(np.sort(np.stack([one[alike], other[alike]], axis=1), axis=1))
    for first, second in np.unique(np.concatenate(found), axis=0).tolist():
        if 0 < np.abs(images[first].astype(np.int16) - images[second]).mean() <= MOST_DISTANCE:
            yield first, second
