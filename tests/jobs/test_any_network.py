"""Networks as people write them, from the first epoch to a run that was reproduced: each a row of the table."""

import signal

import any_networks
import numpy as np
import pytest
from support import tiny_arrays

from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training.progress import TrainingProgress

NETWORKS = [*any_networks.IDIOMS, *any_networks.TORCHVISION]


def interrupt(self, result):
    raise Interrupted(signal.SIGINT)


@pytest.mark.parametrize(
    "name", ["view", "kept_activation", *(pytest.param(name, marks=pytest.mark.long) for name in NETWORKS)]
)
def test_it_is_trained_resumed_evaluated_and_reproduced(cifar, work, runs, monkeypatch, name):
    size = any_networks.TORCHVISION.get(name, 8)
    np.savez(work / "small.npz", **tiny_arrays(train=24, test=6, size=size))
    words = ("--dataset", work / "small.npz", "--network", f"any_networks:{name}", "--batch-size", 8, "--epochs", 2)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", interrupt)
        begun = cifar("train", *words, "--precision", "float32")
    assert begun.code == 130, begun.output
    (run,) = runs()
    resumed = cifar("train", "--resume", run.info.run_id)
    assert resumed.code == 0, resumed.output
    assert "after epoch 1 of 2" in resumed.stderr
    assert cifar("evaluate", run.info.run_id).code == 0
    again = cifar("reproduce", run.info.run_id)
    assert again.code == 0, again.output
    newest, *_, first = runs()
    assert [each.info.status for each in (newest, first)] == ["FINISHED", "FINISHED"]
    formats = {each.data.tags["memory_format"] for each in (newest, first)}
    assert formats == ({"contiguous_format"} if name.startswith("view") else {"channels_last"})


@pytest.mark.parametrize("name", ["branch", "fails_in_training", "nothing_to_train"])
def test_it_is_refused_before_a_run_is_made(cifar, tiny_training, runs, name):
    outcome = cifar("train", *tiny_training, "--network", f"any_networks:{name}")
    assert (outcome.code, runs()) == (2, [])
    assert any_networks.REFUSED[name] in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 2
    assert "Traceback" not in outcome.output
