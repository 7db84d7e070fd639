"""A model that is wrong now and then: a fifth of the labels, in every part, are drawn anew."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support import TINY_CLASSES, TINY_TRAINING, move_store, run_here, standing_in, tiny_arrays


@pytest.fixture(scope="session")
def noisy(tmp_path_factory):
    arrays, rng = tiny_arrays(train=200, test=60), np.random.default_rng(0)
    for name in ("y_train", "y_test"):
        anew = rng.random(len(arrays[name])) < 0.2
        arrays[name][anew] = rng.integers(0, TINY_CLASSES, anew.sum())
    path = tmp_path_factory.mktemp("noisy") / "noisy.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def unsure_once(tmp_path_factory, noisy, empty_store):
    with standing_in(tmp_path_factory.mktemp("unsure")) as work:
        shutil.copy(empty_store, work / "mlflow.db")
        outcome = run_here("train", "--dataset", noisy, *TINY_TRAINING, "--epochs", 4, "--validation-size", 60)
        assert outcome.code == 0, outcome.output
        return work, outcome.stdout.split()[1]


@pytest.fixture
def unsure(work, cifar, unsure_once) -> str:
    """The id of the run, in a store of the test's own."""
    move_store(unsure_once[0], work)
    return unsure_once[1]
