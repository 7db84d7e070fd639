"""Networks as people write them, from the first epoch to a run that was reproduced: each a row of the table."""

import runpy
import signal
from pathlib import Path

import any_networks
import numpy as np
import pytest
import torch
from support import tiny_arrays

from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training.progress import TrainingProgress
from cifar_mlflow.learning.data.datasets import LabeledImages
from cifar_mlflow.tracking.writing import model_files

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
    assert len(outcome.stderr.splitlines()) == 2  # and not what torch.export prints beside
    assert "Traceback" not in outcome.output


class TestAModelThatCannotBeExportedInTheEnd:
    @pytest.fixture
    def kept(self, cifar, work, tiny_training, runs, client, monkeypatch):
        """What a training printed whose export fails, its run, and the directory of its files."""

        def fail(exported, directory):
            raise RuntimeError("an operator\nthat torch has forgotten")

        with monkeypatch.context() as patch:
            patch.setattr(model_files, "save", fail)
            outcome = cifar("train", *tiny_training, "--network", "any_networks:view", "--normalize", "true")
        assert outcome.code == 0, outcome.output
        (run,) = runs()
        return outcome, run, client().download_artifacts(run.info.run_id, ".", work)

    def test_leaves_a_finished_run_with_its_metrics_and_says_so(self, kept, cifar):
        outcome, run, _ = kept
        assert run.info.status == "FINISHED"
        assert {"best_val_accuracy", "final_val_accuracy"} <= run.data.metrics.keys()
        said = "No model to be served could be made (RuntimeError: an operator); weights/load.py in the run's files"
        assert f"warning: {said}" in outcome.stderr
        assert said in run.data.tags["mlflow.note.content"]
        assert run.data.tags["no_model"] == "RuntimeError: an operator"
        evaluated = cifar("evaluate", run.info.run_id)
        assert evaluated.code == 6
        assert "has no model" in evaluated.stderr

    def test_leaves_weights_and_a_recipe_by_which_they_answer_as_the_network_did(self, kept):
        recipe, recorded = Path(kept[2]) / "weights" / "load.py", np.load(f"{kept[2]}/val_predictions.npz")
        program = runpy.run_path(str(recipe))
        pixels = np.load(kept[1].data.params["dataset"])["x_train"][recorded["index"]]
        answers = program["probabilities"](torch.from_numpy(pixels))
        np.testing.assert_allclose(answers, recorded["probabilities"], atol=1e-5)


class TestMemoryThatIsShort:
    def test_in_a_step_on_a_processor(self, cifar, tiny_training, runs):
        outcome = cifar("train", *tiny_training, "--network", "any_networks:greedy")
        assert outcome.code == 5
        assert "error: epoch 1: the cpu device is out of memory with --batch-size 8; try half of it" in outcome.stderr
        assert [run.info.status for run in runs()] == ["FAILED"]

    def test_where_the_images_go_to_the_device(self, cifar, tiny_training, runs, monkeypatch):
        def full(images, device):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

        monkeypatch.setattr(LabeledImages, "to", full)
        outcome = cifar("train", *tiny_training)
        assert outcome.code == 5
        assert "error: memory is short; try a smaller --batch-size or network, or fewer images (CUDA" in outcome.stderr
        assert [run.info.status for run in runs()] == ["FAILED"]

    def test_in_the_trial_before_the_run(self, cifar, tiny_training, runs, monkeypatch):
        def full(self, features):
            raise MemoryError

        monkeypatch.setattr(any_networks.reshape, "between", full)
        outcome = cifar("train", *tiny_training, "--network", "any_networks:reshape")
        assert (outcome.code, runs()) == (5, [])
        assert "memory is too short to try the network on a few images (MemoryError)" in outcome.stderr
