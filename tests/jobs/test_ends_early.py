"""A run that ends before its last epoch: FINISHED, with the reason, done again to the same epoch, shown in a sheet."""

from types import SimpleNamespace

import pytest
from PIL import Image

from cifar_mlflow.learning import stopping

PATIENT = ("--patience", "1", "--epochs", "20", "--learning-rate", "1e-9")


def test_patience_ends_it_and_so_it_does_when_it_is_done_again(cifar, tiny_training, runs, client):
    outcome = cifar("train", *tiny_training, *PATIENT)
    assert outcome.code == 0, outcome.output
    (run,) = runs()
    reached = int(run.data.tags["stopped_epoch"])
    assert 2 <= reached < 20
    assert run.info.status == "FINISHED"
    reason = f"for 1 epoch (--patience) none was better than epoch {reached - 1}"
    assert run.data.tags["stopped_because"] == reason
    assert f"ended after {reached} epochs: {reason}" in outcome.stderr
    assert f"It ended after {reached} epochs: {reason}." in run.data.tags["mlflow.note.content"]
    assert {model.tags["weights"] for model in client().search_logged_models([run.info.experiment_id])} == {
        "last", "best",
    }  # fmt: skip
    again = cifar("reproduce", run.info.run_id)
    assert again.stdout.splitlines()[-1].startswith(f"identical to the bit: 6 metrics over {reached} epochs")
    sheet = client().download_artifacts(run.info.run_id, "training_images.png")
    assert Image.open(sheet).size == (8 * 66 - 2, 4 * 66 - 2)


def test_minutes_end_it_and_it_is_done_again_without_the_clock(cifar, tiny_training, runs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: 0))
        assert cifar("train", *tiny_training, "--epochs", "3", "--max-minutes", "500").code == 0
        assert "stopped_epoch" not in runs()[0].data.tags
        is_last = stopping.Stopping.is_last

        def later(self, epoch):
            patch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: 60 * 500 * (epoch - 1)))
            return is_last(self, epoch)

        patch.setattr(stopping.Stopping, "is_last", later)
        assert cifar("train", *tiny_training, "--epochs", "9", "--max-minutes", "500").code == 0
    run = runs()[0]
    assert (run.info.status, run.data.tags["stopped_epoch"]) == ("FINISHED", "2")
    again = cifar("reproduce", run.info.run_id)
    assert "identical to the bit: 6 metrics over 2 epochs and 3 final metrics" in again.stdout
