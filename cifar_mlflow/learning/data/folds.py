"""Which of several parts each training image is in, so that every image is once left out."""

import numpy as np


def numbers(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each image, int64 (n), 0 to `folds` - 1: drawn by `seed`, equal in size and in classes to one image.

    `labels` int64 (n) has at least as many images as there are folds.
    """
    rng = np.random.default_rng((seed, folds))
    # Images one class after the other, at random within it, are dealt out like cards.
    order = np.lexsort((rng.random(len(labels)), labels))
    dealt = np.empty(len(labels), np.int64)
    dealt[order] = np.arange(len(labels)) % folds
    return dealt
