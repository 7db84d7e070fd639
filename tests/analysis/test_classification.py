"""Scores of predictions, compared with scikit-learn's and with values worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics

from cifar_mlflow.analysis.classification import BINS, score, worst_mistakes


def one_hot(predicted, classes):
    return np.eye(classes, dtype=np.float32)[predicted]


@pytest.fixture
def predictions():
    """Labels and probabilities of 200 images of 4 classes, some right and some wrong."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    probabilities = rng.dirichlet([0.5] * 4, 200).astype(np.float32)
    probabilities[::2] = 0.25 * probabilities[::2] + 0.75 * one_hot(labels[::2], 4)
    return labels, probabilities


def test_what_is_counted_is_what_scikit_learn_counts(predictions):
    labels, probabilities = predictions
    predicted, found = probabilities.argmax(1), score(*predictions)
    assert (found.images, found.correct) == (200, (predicted == labels).sum())
    assert found.accuracy == pytest.approx(100 * metrics.accuracy_score(labels, predicted))
    assert found.loss == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-5)
    assert (found.confusion == metrics.confusion_matrix(labels, predicted)).all()
    assert found.precision == pytest.approx(100 * metrics.precision_score(labels, predicted, average=None))
    assert found.recall == pytest.approx(100 * metrics.recall_score(labels, predicted, average=None))
    assert not np.allclose(found.precision, found.recall)


def test_a_rate_that_does_not_exist_is_nan():
    found = score(np.array([0, 0, 1]), one_hot([0, 1, 1], 4))
    assert found.precision == pytest.approx([100, 50, np.nan, np.nan], nan_ok=True)
    assert found.recall == pytest.approx([50, 100, np.nan, np.nan], nan_ok=True)
    assert found.confusion.shape == (4, 4)


def test_an_answer_held_for_impossible_costs_much_but_not_infinitely_much():
    assert score(np.array([0]), one_hot([1], 2)).loss == pytest.approx(-np.log(np.finfo(np.float32).tiny))


def test_calibration_compares_confidence_and_accuracy_bin_by_bin():
    # Two bins: 0.8 four times, of which three are right; 0.6 twice, of which none is.
    confidence, right = np.array([0.8] * 4 + [0.6] * 2), np.array([1, 1, 1, 0, 0, 0])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    expected = 100 * (4 * abs(0.8 - 3 / 4) + 2 * 0.6) / 6
    assert score(1 - right, probabilities).calibration_error == pytest.approx(expected)


def test_a_confidence_of_one_is_in_the_last_bin():
    # Too sure of the one, not sure enough of the other: together it is less than apart.
    confident = 1 - 0.5 / BINS
    probabilities = np.array([[1.0, 0.0], [confident, 1 - confident]])
    found = score(np.array([1, 0]), probabilities).calibration_error
    assert found == pytest.approx(100 * (1 + confident - 1) / 2)


def test_the_bins_end_where_fifteenths_do():
    labels = np.array([0, 1])
    below, above = 10 / BINS - 0.001, 10 / BINS + 0.001
    # In two bins each is off by itself; in one they would cancel out in part.
    probabilities = np.array([[below, 1 - below], [above, 1 - above]])
    assert score(labels, probabilities).calibration_error == pytest.approx(100 * (1 - below + above) / 2)


def test_the_worst_mistakes_are_wrong_and_the_most_confident_first():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 1, 0])
    assert worst_mistakes(labels, probabilities, 9).tolist() == [2, 1, 4]
    assert worst_mistakes(labels, probabilities, 2).tolist() == [2, 1]
    assert worst_mistakes(labels[:1], probabilities[:1], 9).tolist() == []
