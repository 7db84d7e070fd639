"""A terminal that is closed while a training runs: the run is ended with what it reached, and says how to go on."""

import os
import signal

import pytest

from cifar_mlflow.jobs.training.progress import TrainingProgress


@pytest.fixture
def hung_up_after_an_epoch(monkeypatch):
    before = signal.signal(signal.SIGHUP, lambda number, frame: pytest.fail("nobody has taken the signal"))
    monkeypatch.setattr(TrainingProgress, "epoch", lambda self, result: os.kill(os.getpid(), signal.SIGHUP))
    yield
    signal.signal(signal.SIGHUP, before)


def test_leaves_no_run_running(cifar, tiny_training, runs, hung_up_after_an_epoch):
    outcome = cifar("train", *tiny_training)
    assert outcome.code == 129
    (run,) = runs()
    assert run.info.status == "KILLED"
    assert f"cifar-mlflow train --resume {run.info.run_id}" in outcome.stderr
