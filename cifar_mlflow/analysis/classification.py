"""How good predictions are: counts and rates from labels and class probabilities."""

from dataclasses import dataclass

import numpy as np

BINS = 15  # of confidence, for the calibration error


@dataclass(frozen=True)
class Score:
    """What a set of predictions is worth. Percentages are 0 to 100; `loss` is the mean cross-entropy in nats.

    `confusion` counts images, a row for each true class and a column for each predicted one. `precision` and
    `recall` have one value a class, nan where it does not exist (nothing predicted; no image of the class).
    `calibration_error` is the mean distance of confidence and accuracy in equal bins of confidence (Guo et al., 2017).
    """

    images: int
    correct: int
    accuracy: float
    loss: float
    confusion: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    calibration_error: float


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts of images, a row for each true class and a column for each predicted one."""
    return np.bincount(classes * labels + predicted, minlength=classes**2).reshape(classes, classes)


def recall(confusion: np.ndarray) -> np.ndarray:
    """Per cent of each class's images that were told, nan of a class without images."""
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * confusion.diagonal() / confusion.sum(1))


def score(labels: np.ndarray, probabilities: np.ndarray) -> Score:
    """Scores `probabilities` (n, classes), each row summing to 1, against `labels` (n)."""
    images, classes = probabilities.shape
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predicted, classes)
    correct = int(confusion.trace())
    likelihood = probabilities[np.arange(images), labels].astype(np.float64)
    confidence, bins = bins_of(probabilities)
    gaps = np.bincount(bins, weights=confidence - (predicted == labels))
    return Score(
        images=images,
        correct=correct,
        accuracy=100 * correct / images,
        loss=float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean()),
        confusion=confusion,
        precision=recall(confusion.T),
        recall=recall(confusion),
        calibration_error=float(100 * np.abs(gaps).sum() / images),
    )


def bins_of(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of `probabilities` (n, classes) the confidence, float64 (n), and the bin that it is in, int64 (n)."""
    confidence = probabilities.max(1).astype(np.float64)
    return confidence, np.minimum((confidence * BINS).astype(int), BINS - 1)


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Positions of the wrong answers given with the highest confidence, worst first, at most `count`."""
    confidence = probabilities.max(1)
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count]


def worst_by_pair(labels: np.ndarray, probabilities: np.ndarray, pairs: int, each: int) -> np.ndarray:
    """Positions of the most confident mistakes of the pairs of classes that are most often confused.

    Of at most so many `pairs` (true and predicted class), the commonest first, at most so many of `each`.
    """
    classes = probabilities.shape[1]
    worst = worst_mistakes(labels, probabilities, len(labels))
    pair = labels[worst] * classes + probabilities[worst].argmax(1)
    kinds, counts = np.unique(pair, return_counts=True)
    commonest = kinds[np.argsort(-counts, kind="stable")][:pairs]
    return np.concatenate([worst[:0], *(worst[pair == kind][:each] for kind in commonest)])
