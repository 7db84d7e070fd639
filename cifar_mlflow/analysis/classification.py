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
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    correct = int(confusion.trace())
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = 100 * confusion.diagonal() / confusion.sum(0)
        recall = 100 * confusion.diagonal() / confusion.sum(1)
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


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over equal bins of confidence, in per cent (Guo et al., 2017)."""
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(100 * np.abs(gaps).sum() / len(labels))


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Positions of the wrong answers given with the highest confidence, worst first, at most `count`."""
    confidence = probabilities.max(1)
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
