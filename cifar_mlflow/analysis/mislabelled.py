"""Which labels are likely to be wrong, by confident learning: numbers from answers to images not trained on.

Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70 (2021).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Suspicion:
    """By image: `margin` float64 (n), `predicted` int64 (n), and `likely` bool (n): confident learning counts it.

    The margin is the probability of the label less that of the most probable other class (the paper's normalized
    margin), from -1, where all contradicts the label, to 1. `order` int64 (n) has the lowest first.
    """

    order: np.ndarray
    margin: np.ndarray
    predicted: np.ndarray
    likely: np.ndarray


def suspicion(labels: np.ndarray, probabilities: np.ndarray) -> Suspicion:
    """`labels` int64 (n) against `probabilities` (n, classes), each of a network that was trained without the image.

    An image is counted if the class of which it is told most, among those told with at least the confidence that is
    usual for the class (the mean over the images with that label), is not its label: it stands beside the diagonal of
    the confident joint.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    own = probabilities[rows, labels].astype(np.float64)
    sums, images = np.bincount(labels, own, classes), np.bincount(labels, minlength=classes)
    usual = np.where(images > 0, sums / np.maximum(images, 1), np.inf)
    confident = np.where(probabilities >= usual, probabilities, -1.0)
    told = confident.argmax(1)
    others = probabilities.astype(np.float64)
    others[rows, labels] = -1.0
    margin = own - others.max(1)
    return Suspicion(
        order=np.argsort(margin, kind="stable"),
        margin=margin,
        predicted=probabilities.argmax(1),
        likely=confident[rows, told] > confident[rows, labels],
    )
