"""Whether probabilities mean what they say, and the one number that has them mean it."""

from dataclasses import dataclass

import numpy as np

from cifar_mlflow.analysis.classification import bins_of

LOWEST, HIGHEST = 0.01, 100.0  # temperatures among which the best is looked for


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float64 (n, classes) of `logits` (n, classes), divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(1, keepdims=True)
    exponentials = np.exp(scaled)
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature with the lowest negative log-likelihood (Guo et al., On Calibration of Modern Neural Networks).

    `labels` int64 (n) are the classes of images on which the network was not trained, `logits` (n, classes) what it
    says of them. The likelihood has one optimum, since its logarithm is concave in the inverse of the temperature.

    Raises ValueError, with the reason, if no temperature is the best.
    """
    from scipy.optimize import minimize_scalar

    if (logits.argmax(1) == labels).all():
        raise ValueError(f"all {len(labels):,} of them are told right, so that any lower temperature would look better")
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels]

    def loss(logarithm: float) -> float:
        beta = np.exp(-logarithm)
        return float((np.log(np.exp(beta * shifted).sum(1)) - beta * own).mean())

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    found = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
    if not 1.01 * LOWEST < found < HIGHEST / 1.01:
        raise ValueError("what it answers to them is no better than chance")
    return found


@dataclass(frozen=True)
class Reliability:
    """Of each bin of confidence that has images: their mean confidence and accuracy (0 to 1), and how many they are."""

    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """By the bins of the calibration error; `labels` int64 (n), `probabilities` (n, classes)."""
    confidence, bins = bins_of(probabilities)
    images = np.bincount(bins)
    there = images > 0
    right = np.bincount(bins, weights=probabilities.argmax(1) == labels)[there] / images[there]
    return Reliability(np.bincount(bins, weights=confidence)[there] / images[there], right, images[there])
