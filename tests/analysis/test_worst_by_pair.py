"""The worst mistakes of the classes that are most often confused."""

import numpy as np

from cifar_mlflow.analysis.classification import worst_by_pair

LABELS = np.array([0, 0, 1, 0, 2, 2])
PROBABILITIES = np.array([
    [0.3, 0.6, 0.1],
    [0.0, 0.1, 0.9],
    [0.1, 0.8, 0.1],
    [0.1, 0.9, 0.0],
    [0.0, 0.6, 0.4],
    [0.5, 0.3, 0.2],
])  # fmt: skip


def test_are_by_pair_the_commonest_first_and_the_most_confident_of_each():
    assert worst_by_pair(LABELS, PROBABILITIES, 1, 6).tolist() == [3, 0]
    assert worst_by_pair(LABELS, PROBABILITIES, 2, 1).tolist() == [3, 1]
    assert worst_by_pair(LABELS, PROBABILITIES, 9, 9).tolist() == [3, 0, 1, 5, 4]


def test_of_no_mistake_are_none():
    assert worst_by_pair(LABELS[2:3], PROBABILITIES[2:3], 4, 6).tolist() == []
