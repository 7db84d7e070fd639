"""Whatever says on what and how a run is trained: it goes on, and is done again, to the same numbers and files."""

import signal

import numpy as np
import pytest
import torch
from support import TINY_TRAINING, tiny_arrays

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training import checkpoints
from cifar_mlflow.jobs.training.progress import TrainingProgress
from cifar_mlflow.learning.networks.build import build

DATA = ("--folds", 3, "--seed", 4, "--class-weights", "balanced")
STEPS = ("--mix", "mixup", "--augmentation", "trivial_augment", "--shift", 1, "--accumulate", 2, "--clip-grad", 1)
ENDS = ("--patience", 2, "--max-minutes", 500)


@pytest.fixture
def unequal(work):
    """The tiny dataset with half the images of a class, and weights to start from."""
    arrays = tiny_arrays()
    kept = (arrays["y_train"] != 2) | (np.arange(120) % 2 == 0)
    arrays |= {name: arrays[name][kept] for name in ("x_train", "y_train")}
    np.savez(work / "unequal.npz", **arrays)
    torch.manual_seed(7)
    torch.save(build(resolve({}), 5, (8, 8, 3)).state_dict(), work / "start.pt")


def results(client, run_id) -> tuple[dict[str, float], dict[str, np.ndarray], str]:
    """The metrics but for times, what the run answers to its fold, and the weights of the classes."""
    metrics = client().get_run(run_id).data.metrics
    with np.load(client().download_artifacts(run_id, "fold_predictions.npz")) as answers:
        told = {name: answers[name] for name in answers.files}
    with open(client().download_artifacts(run_id, "class_weights.csv")) as file:
        return {name: value for name, value in metrics.items() if "second" not in name}, told, file.read()


@pytest.mark.parametrize("parts", [("--backbone-rate", 0.5), ("--freeze", "backbone")], ids=lambda words: words[0])
def test_goes_on_and_is_done_again(cifar, client, runs, unequal, monkeypatch, parts):
    words = ("--dataset", "unequal.npz", *TINY_TRAINING, *DATA, *STEPS, *ENDS, "--pretrained", "start.pt", *parts)
    assert (whole := cifar("train", *words)).code == 0, whole.output
    assert "warning: --class-weights" not in whole.stderr
    metrics, answers, weights = results(client, runs()[0].info.run_id)

    def interrupt(self, result):
        if result.epoch == 2:
            raise Interrupted(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", interrupt)
        patch.setattr(checkpoints, "SECONDS", 0.0)
        assert cifar("train", *words).code == 130
    run = runs()[0]
    assert run.data.tags["fold"] == "2/3"
    resumed = cifar("train", "--resume", run.info.run_id)
    assert resumed.code == 0, resumed.output
    assert "after epoch 2 of 3" in resumed.stderr
    again = results(client, run.info.run_id)
    assert again[0] == metrics
    assert answers.keys() == again[1].keys()
    assert all((answers[name] == again[1][name]).all() for name in answers)
    assert again[2] == weights
    reproduced = cifar("reproduce", run.info.run_id)
    assert reproduced.stdout.splitlines()[-1].startswith("identical to the bit"), reproduced.output


def test_other_folds_are_another_run(cifar, runs, unequal, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "step", lambda self, images, steps: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cifar("train", "--dataset", "unequal.npz", *TINY_TRAINING, *DATA).code == 130
    refused = cifar("train", "--resume", runs()[0].info.run_id, "--folds", 4, "--class-weights", "none")
    assert refused.code == 2
    assert "--folds: given is 4, the run has 3" in refused.stderr
    assert "--class-weights: given is none, the run has balanced" in refused.stderr
