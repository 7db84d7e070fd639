"""On a CUDA GPU: train, go on to the bit, reproduce, a sweep of two workers on a card, predict, and without one.

Skipped where there is no such GPU. None was at hand when these were written; they were run with `DEVICE` the processor.
"""

from __future__ import annotations

import signal

import pytest
import torch
import yaml
from PIL import Image
from support import photo

from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training import checkpoints
from cifar_mlflow.jobs.training.progress import TrainingProgress

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]
ON_DEVICE = ("--device", DEVICE)


@pytest.fixture
def history(client):
    """A function that returns the values of each epoch of a run, without those of time."""

    def of(run) -> dict[str, list[float]]:
        names = [name for name in run.data.metrics if "second" not in name and not name.startswith("system/")]
        return {name: [each.value for each in client().get_metric_history(run.info.run_id, name)] for name in names}

    return of


@pytest.fixture
def trained_there(cifar, tiny_training, runs):
    outcome = cifar("train", *tiny_training, *ON_DEVICE)
    assert outcome.code == 0, outcome.output
    (run,) = runs()
    return run


def test_a_training_is_on_the_gpu_and_says_on_which(trained_there):
    told = trained_there.data.params | trained_there.data.tags
    assert DEVICE != "cuda" or torch.cuda.get_device_name() in told.values()
    assert trained_there.data.metrics["val_accuracy"] > 90  # the tiny dataset is learned


def test_a_run_that_broke_off_goes_on_to_the_bit(
    trained_there, cifar, tiny_training, runs, history, monkeypatch, client
):
    with monkeypatch.context() as patch:

        def interrupt(self, result):
            if result.epoch == 2:
                raise Interrupted(signal.SIGINT)

        patch.setattr(TrainingProgress, "epoch", interrupt)
        patch.setattr(checkpoints, "SECONDS", 0.0)
        assert cifar("train", *tiny_training, *ON_DEVICE, "--run-name", "broken").code == 130
    (broken,) = [run for run in runs() if run.info.run_name == "broken"]
    outcome = cifar("train", "--resume", broken.info.run_id)
    assert outcome.code == 0, outcome.output
    assert history(client().get_run(broken.info.run_id)) == history(trained_there)


def test_a_run_is_reproduced(trained_there, cifar):
    outcome = cifar("reproduce", trained_there.info.run_id)
    assert outcome.code == 0, outcome.output


def test_two_workers_on_one_card(cifar, cifar_process, work, tiny, runs):
    base = {"dataset": str(tiny), "epochs": 2, "batch_size": 8, "scheduler": "none", "device": DEVICE}
    spec = {"name": "two", "base": base, "space": {"activation": ["relu", "elu"]}, "log_models": False}
    (work / "sweep.yaml").write_text(yaml.safe_dump({**spec, "gpus_per_worker": 0.5}))
    outcome = cifar_process("sweep", "sweep.yaml")
    assert outcome.code == 0, outcome.output
    trials = [run for run in runs() if run.data.tags["kind"] == "trial"]
    assert [run.info.status for run in trials] == ["FINISHED"] * 2
    assert len({run.data.tags["process_id"] for run in trials}) == 2


def test_a_model_from_the_gpu_predicts_there_and_on_a_machine_without_one(trained_there, cifar, work, monkeypatch):
    picture = photo(1).resize((8, 8), Image.Resampling.BILINEAR)
    picture.save(work / "photo.png")
    there = cifar("predict", trained_there.info.run_id, "photo.png", "--format", "csv")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    here = cifar("predict", trained_there.info.run_id, "photo.png", "--format", "csv")
    assert (there.code, here.code) == (0, 0), there.output + here.output
    assert there.stdout.splitlines()[1].split(",")[:2] == here.stdout.splitlines()[1].split(",")[:2]
