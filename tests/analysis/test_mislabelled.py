"""Labels that were made wrong come first, and confident learning counts them as the paper does."""

import numpy as np
import pytest

from cifar_mlflow.analysis.mislabelled import suspicion


def test_the_margin_ranks_and_the_confident_joint_counts():
    # The usual confidence of class 0 is (0.9 + 0.6 + 0.1) / 3 = 0.53, of class 1 (0.8 + 0.3 + 0.55) / 3 = 0.55.
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.45, 0.55]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    found = suspicion(labels, probabilities)
    assert found.margin == pytest.approx([0.8, 0.2, -0.8, 0.6, -0.4, 0.1])
    assert found.order.tolist() == [2, 4, 5, 1, 3, 0]
    assert found.predicted.tolist() == [0, 0, 1, 1, 0, 1]
    assert found.likely.tolist() == [False, False, True, False, True, False]


def test_what_no_class_is_told_with_its_usual_confidence_is_not_counted():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.1, 0.9]])
    found = suspicion(np.array([0, 0, 0, 1, 1]), probabilities)
    assert found.order[0] == 2
    assert not found.likely.any()  # 0.6 is less than the 0.9 that is usual for class 1


def test_a_class_without_a_label_is_never_suspected():
    found = suspicion(np.array([0, 1]), np.array([[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]]))
    assert not found.likely.any()
    assert found.predicted.tolist() == [2, 2]


def test_flipped_labels_come_first():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, 2000)
    logits = rng.normal(size=(2000, 10)) + 6 * np.eye(10)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    flipped = rng.choice(2000, 40, replace=False)
    labels = true.copy()
    labels[flipped] = (labels[flipped] + rng.integers(1, 10, 40)) % 10
    found = suspicion(labels, probabilities)
    assert len(set(found.order[:40]) & set(flipped)) >= 38
    assert found.likely[flipped].sum() >= 25
    assert found.likely.sum() <= 45
