"""A trial that is killed goes on from its last checkpoint, to the numbers of one that was never interrupted."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import forked
import numpy as np
import pytest
from mlflow import MlflowClient

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.jobs.health import machine
from cifar_mlflow.jobs.sweeping import trial

# Random in all ways, so that a state that was lost would be seen.
BASE = {
    "epochs": 5, "batch_size": 8, "scheduler": "one_cycle", "precision": "float32", "dropout": 0.2,
    "augmentation": "flip_crop", "shift": 2,
}  # fmt: skip
SPACE = {"activation": {"kind": "choice", "values": ["elu"]}}


def train(dataset, number, changes, checkpoint_after, unwritable=False):
    """Trains the trial and kills this process in epoch `number` (0: never); returns the epochs that were told."""
    from cifar_mlflow.jobs.training import checkpoints

    checkpoints.SECONDS = 0.0 if checkpoint_after else 3600.0
    if unwritable:
        checkpoints.RunCheckpoints.save = full
    given = {"name": "s", "base": {"dataset": dataset, **BASE, **changes}, "space": SPACE, "log_models": False}
    spec, told = SweepConfig.model_validate(given), []
    config = spec.configuration({"activation": "elu"}, 0)
    tags = {"kind": "trial", "run_fingerprint": config.run_fingerprint(*trial.digests(trial.settings(config)))}

    def tell(event):
        told.append(event[0])
        if event[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    outcome = trial.run_trial(spec, "e", trial.TrialRun(config, "n", tags), tell)
    return told, outcome.value


def full(self):
    from cifar_mlflow.errors import TrainingError

    raise TrainingError("no room")


@pytest.fixture
def place(tmp_path, empty_store):
    def make(name):
        directory = tmp_path / name
        directory.mkdir()
        shutil.copy(empty_store, directory)
        return directory

    return make


def call(directory, tiny, number=0, checkpoint_after=True, unwritable=False, **changes):
    try:
        return forked.call(directory, train, str(tiny), number, changes, checkpoint_after, unwritable)
    except EOFError:  # it was killed
        return None


def everything(directory, tmp_path):
    """Each metric of each epoch of the finished run, and its answers to the validation images."""
    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    experiment = client.get_experiment_by_name("e").experiment_id
    (run,) = client.search_runs([experiment], "attributes.status = 'FINISHED'")
    names = set(run.data.metrics) - {"images_per_second"}
    curves = {name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)] for name in names}
    answers = np.load(Path(client.download_artifacts(run.info.run_id, "val_predictions.npz", str(tmp_path))))
    return curves, answers["probabilities"].tobytes()


def kept(directory):
    return [path.name for path in (directory / "state" / "checkpoints").glob("*/")]


@pytest.fixture
def uninterrupted(place, tiny, tmp_path):
    directory = place("uninterrupted")
    told, value = call(directory, tiny)
    assert (told, kept(directory)) == ([1, 2, 3, 4, 5], [])
    return everything(directory, tmp_path), value


def test_a_killed_trial_goes_on_to_the_same_bits(place, tiny, tmp_path, uninterrupted):
    directory = place("killed")
    assert call(directory, tiny, number=2) is None
    assert call(directory, tiny, number=4) is None
    assert [name.partition(".")[0] for name in kept(directory)] == ["s"]
    told, value = call(directory, tiny)
    assert told == [1, 2, 3, 4, 5]  # those before the kill were not trained, and told again
    assert (everything(directory, tmp_path), value) == uninterrupted
    assert kept(directory) == []


def test_the_epochs_before_are_not_trained_again(place, tiny, monkeypatch):
    directory = place("killed")
    assert call(directory, tiny, number=4) is None
    files = sorted((directory / "state" / "checkpoints").glob("*/*"))
    assert [file.name for file in files] == ["000003.checkpoint", "000004.checkpoint"]


@pytest.mark.parametrize("changes", [{"checkpoint_after": False}, {"unwritable": True}])
def test_a_short_trial_and_one_without_room_keep_none_and_begin_anew(place, tiny, tmp_path, uninterrupted, changes):
    directory = place("killed")
    assert call(directory, tiny, number=4, **changes) is None
    assert kept(directory) == []
    told, value = call(directory, tiny, **changes)
    assert (told, everything(directory, tmp_path), value) == ([1, 2, 3, 4, 5], *uninterrupted)


def test_a_checkpoint_under_other_conditions_is_not_used(place, tiny, tmp_path, uninterrupted):
    directory = place("killed")
    # As with other threads: the trial has the same name, and may come to other bits.
    assert call(directory, tiny, number=3, accelerate="none") is None
    told, value = call(directory, tiny)
    assert (told, everything(directory, tmp_path), value) == ([1, 2, 3, 4, 5], *uninterrupted)
    assert kept(directory) == []


def test_doctor_tells_what_a_trial_that_broke_off_has_left(work):
    directory = work.parent / "state" / "checkpoints" / "a.sweep.0123456789abcdef"
    directory.mkdir(parents=True)
    (found,) = machine.checkpoints(None)
    assert (found.severity, found.fix) == ("note", None)
    assert f"{directory} is of a trial of the sweep a.sweep, which goes on from it" in found.text
