"""Single models compared on the images they share: all that can be tested when configurations have one run each."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifar_mlflow.analysis import statistics
from cifar_mlflow.records import RunRecord


@dataclass(frozen=True)
class ModelTest:
    """The most accurate of several models against another one, on the same images."""

    best: RunRecord
    other: RunRecord
    images: int
    best_accuracy: float
    other_accuracy: float
    only_best: int  # images that the best alone classifies correctly
    only_other: int
    p: float  # McNemar's, multiplied by the number of pairs of models: the best is picked from the same predictions


def compare_models(runs: Sequence[RunRecord]) -> tuple[ModelTest, ...]:
    """McNemar's test of the best model against each other one, in the largest group with the same images."""
    by_images: defaultdict[bytes, list[tuple[RunRecord, NDArray[np.bool_]]]] = defaultdict(list)
    for run in runs:
        if (seen := run.predictions) is not None:
            order = np.argsort(seen.index, kind="stable")
            arrays = (seen.index, seen.label, seen.predicted)
            index, label, predicted = (np.asarray(array, dtype=np.int64)[order] for array in arrays)
            by_images[index.tobytes() + label.tobytes()].append((run, predicted == label))
    models = max(by_images.values(), key=len, default=[])
    if len(models) < 2:
        return ()
    correct = np.array([right for _, right in models])
    totals, images = correct.sum(axis=1), correct.shape[1]
    best = int(totals.argmax())
    only_best = (correct[best] & ~correct).sum(axis=1)
    only_other = (~correct[best] & correct).sum(axis=1)
    p_values = np.minimum(1.0, statistics.mcnemar(only_best, only_other) * math.comb(len(models), 2))
    return tuple(
        ModelTest(
            best=models[best][0],
            other=models[position][0],
            images=images,
            best_accuracy=100 * int(totals[best]) / images,
            other_accuracy=100 * int(totals[position]) / images,
            only_best=int(only_best[position]),
            only_other=int(only_other[position]),
            p=float(p_values[position]),
        )
        for position in np.argsort(-totals, kind="stable")
        if position != best
    )
