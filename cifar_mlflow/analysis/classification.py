"""How good predictions are: counts and rates from labels and class probabilities."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """What a set of predictions is worth. Percentages are 0 to 100; `loss` is the mean cross-entropy in nats.

    `confusion` counts images, a row for each true class and a column for each predicted one. `precision` and
    `recall` have one value a class, nan where it does not exist (nothing predicted; no image of the class).
    """

    images: int
    correct: int
    accuracy: float
    loss: float
    confusion: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    calibration_error: float


def score(labels: np.ndarray, probabilities: np.ndarray) -> Score:
    """Scores `probabilities` (n, classes), each row summing to 1, against `labels` (n)."""
    images, classes = probabilities.shape
    predicted = probabilities.argmax(1)
    confusion = np.bincount(classes * labels + predicted, minlength=classes**2).reshape(classes, classes)
    correct = int(confusion.trace())
    with np.errstate(invalid="ignore"):
        precision, recall = (100 * confusion.diagonal() / confusion.sum(axis) for axis in (0, 1))
    likelihood = probabilities[np.arange(images), labels].astype(np.float64)
    return Score(
        images=images,
        correct=correct,
        accuracy=100 * correct / images,
        loss=float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean()),
        confusion=confusion,
        precision=precision,
        recall=recall,
        calibration_error=expected_calibration_error(labels, probabilities),
    )


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over 15 equal bins of confidence, in per cent (Guo et al., 2017)."""
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    gaps = np.bincount(np.minimum((confidence * 15).astype(int), 14), weights=confidence - right)
    return float(100 * np.abs(gaps).sum() / len(labels))


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Positions of the wrong answers given with the highest confidence, worst first, at most `count`."""
    confidence = probabilities.max(1)
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
