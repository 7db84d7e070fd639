"""Images that are the same, to the pixel or nearly so: a score on what a network has trained on says nothing."""

from collections.abc import Iterator, Sequence

import numpy as np

HASH_BITS = 64
NEIGHBOURS = 8  # in the order of the hashes, with which an image is compared
MOST_BITS = 4  # in which the hashes of near duplicates differ
MOST_DISTANCE = 6.0  # levels of 256 by which their pixels differ on average
_BLOCK_BYTES = 2**22  # of images that are hashed at once


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
    height, width, channels = pixels.shape[1:]
    rows, columns = _squares(height, 8), _squares(width, 9)
    area = rows.sum(1)[:, None] * columns.sum(1)
    columns = np.repeat(columns, channels, axis=1).T
    hashes = [np.empty(0, np.uint64)]
    block = max(1, _BLOCK_BYTES // (height * width * channels))
    for start in range(0, len(pixels), block):
        lines = pixels[start : start + block].reshape(-1, width * channels).astype(np.float32)
        squares = rows @ (lines @ columns).reshape(-1, height, 9) / area  # sums of whole numbers: exact
        bits = (np.diff(squares, axis=2) > 0).reshape(len(squares), -1)
        hashes.append(np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64))
    return np.concatenate(hashes)


def _squares(length: int, number: int) -> np.ndarray:
    """float32 (number, length): 1 where a pixel is in one of so many parts of a line, which may share pixels."""
    starts = np.arange(number)[:, None] * length
    pixels = np.arange(length)
    return ((starts // number <= pixels) & (pixels < -(-(starts + length) // number))).astype(np.float32)


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
