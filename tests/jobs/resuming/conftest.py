"""A run that was interrupted, to be resumed."""

import shutil
import signal

import numpy as np
import pytest
from support import TINY_TRAINING, move_store, run_here, standing_in, tiny_arrays

from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training import checkpoints
from cifar_mlflow.jobs.training.progress import TrainingProgress


@pytest.fixture(scope="session")
def interrupted_once(tmp_path_factory, empty_store):
    """A training that was interrupted after 2 of 3 epochs, with its dataset: directory, what it printed."""
    with standing_in(tmp_path_factory.mktemp("interrupted")) as work, pytest.MonkeyPatch.context() as patch:
        shutil.copy(empty_store, work)
        np.savez(work / "mine.npz", **tiny_arrays())

        def interrupt(self, result):
            if result.epoch == 2:
                raise Interrupted(signal.SIGINT)

        patch.setattr(TrainingProgress, "epoch", interrupt)
        patch.setattr(checkpoints, "SECONDS", 0.0)
        return work, run_here("train", "--dataset", "mine.npz", *TINY_TRAINING)


@pytest.fixture
def interrupted(work, cifar, interrupted_once, runs):
    """The run, in a store and a state directory of the test's own."""
    move_store(interrupted_once[0], work)
    shutil.copy(interrupted_once[0] / "mine.npz", work)
    shutil.copytree(interrupted_once[0].parent / "state", work.parent / "state")
    (run,) = runs()
    return run


@pytest.fixture
def run_id(interrupted):
    return interrupted.info.run_id


@pytest.fixture
def directory(work, run_id):
    """Where its checkpoints are."""
    return work.parent / "state" / "checkpoints" / run_id
