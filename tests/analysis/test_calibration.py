"""The temperature is found that the logits were made with, and what has none is told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_mlflow.analysis import calibration, classification, plots


def drawn(temperature, images=20_000, seed=0):
    """Logits of a network that is too sure by `temperature`: labels are drawn by their true probabilities."""
    rng = np.random.default_rng(seed)
    true = 2 * rng.normal(size=(images, 5))
    chosen = (calibration.softmax(true).cumsum(1) < rng.random(images)[:, None]).sum(1)
    return np.minimum(chosen, 4), (true * temperature).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 12.0])
def test_the_temperature_is_found(temperature):
    labels, logits = drawn(temperature)
    found = calibration.fit_temperature(labels, logits)
    assert found == pytest.approx(temperature, rel=0.03)
    before, after = (
        classification.score(labels, calibration.softmax(logits, each)).calibration_error for each in (1, found)
    )
    assert after < 1.5
    assert temperature == 1 or before > 2 * after


def test_it_is_where_the_likelihood_is_highest():
    labels, logits = drawn(2.5, images=500)
    found = calibration.fit_temperature(labels, logits)

    def loss(temperature):
        return -np.log(calibration.softmax(logits, temperature)[np.arange(500), labels]).mean()

    others = np.geomspace(0.1, 50, 2000)
    assert loss(found) <= min(map(loss, others)) + 1e-9


def test_logits_far_apart_do_not_overflow():
    labels, logits = drawn(2.0)
    assert calibration.fit_temperature(labels, 1000 * logits / 50 + 1e4) == pytest.approx(40, rel=0.03)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 50))
def test_no_answer_changes_by_a_temperature(seed, temperature):
    logits = np.random.default_rng(seed).normal(size=(50, 7)).astype(np.float32)
    assert (calibration.softmax(logits, temperature).argmax(1) == logits.argmax(1)).all()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 1, 2], "all 3 of them are told right, so that any lower temperature would look better"),
        ([1, 2, 0], "what it answers to them is no better than chance"),
    ],
)
def test_without_an_optimum_there_is_no_temperature(labels, told):
    with pytest.raises(ValueError, match=told):
        calibration.fit_temperature(np.array(labels), np.eye(3, dtype=np.float32))


def test_reliability_has_the_bins_of_the_calibration_error():
    labels, logits = drawn(2.5)
    probabilities = calibration.softmax(logits)
    curve = calibration.reliability(labels, probabilities)
    gaps = np.abs(curve.confidence - curve.accuracy) * curve.images
    assert 100 * gaps.sum() / len(labels) == pytest.approx(
        classification.score(labels, probabilities).calibration_error
    )
    assert curve.images.sum() == len(labels)
    assert plots.reliability({"a $x_": curve}, "t").startswith(b"\x89PNG")
