"""`reproduce` of runs that broke off, of models, and of what cannot be done again."""

import os
import signal

import pytest
import torch
from support import DIVERGING


class TestAuto:
    """What `auto` came to is repeated, even where it would come to something else."""

    @pytest.fixture
    def other_hardware(self, cifar, runs, tiny_training, monkeypatch):
        """A run with --precision auto and --threads auto; then the hardware learns or unlearns bfloat16."""
        from cifar_mlflow.learning import hardware

        monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: True)
        assert cifar("train", *tiny_training, "--precision", "auto", "--epochs", 1).code == 0
        monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: False)
        (run,) = runs()
        return run

    def test_precision(self, cifar, runs, other_hardware):
        outcome = cifar("reproduce", other_hardware.info.run_id)
        assert "--precision bfloat16 as in the original; auto would be float32 here" in outcome.stderr
        assert outcome.stdout.splitlines()[-1].startswith("identical to the bit: ")
        assert runs()[0].data.params["precision"] == "bfloat16"

    def test_threads(self, cifar, runs, other_hardware):
        torch.set_num_threads(2)
        assert cifar("reproduce", other_hardware.info.run_id, "--precision", "bfloat16").code == 0
        assert runs()[0].data.tags["threads_used"] == "1"

    def test_device_that_is_not_here(self, cifar, client, runs, other_hardware):
        client().set_tag(other_hardware.info.run_id, "device", "mps")
        outcome = cifar("reproduce", other_hardware.info.run_id)
        assert "differs: device mps there, cpu here" in outcome.stderr
        assert runs()[0].data.params["device"] == "auto"


def test_a_registered_model_stands_for_its_run(cifar, client, trained, run_id, again):
    model_id = trained.outputs.model_outputs[0].model_id
    client().create_registered_model("tiny")
    client().create_model_version("tiny", f"models:/{model_id}", model_id=model_id)
    client().set_registered_model_alias("tiny", "champion", "1")
    assert cifar("reproduce", "--of-version", "tiny@champion").code == 0
    assert again().info.status == "FINISHED"
    commands = {cifar("reproduce", "--of-version", f"models:/tiny{end}", "--print-command").stdout
                for end in ("/1", "@champion")}  # fmt: skip
    assert commands == {cifar("reproduce", run_id, "--print-command").stdout}


def test_a_run_that_was_cut_off_is_compared_as_far_as_it_went(cifar, runs, client, tiny_training, monkeypatch):
    from cifar_mlflow.jobs.training.progress import TrainingProgress

    def stop_after_the_second(self, result):
        if result.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", stop_after_the_second)
        assert cifar("train", *tiny_training).code == 143
    (original,) = runs()
    outcome = cifar("reproduce", original.info.run_id)
    assert outcome.code == 0
    assert "2 of 3 epochs are compared: the original is KILLED" in outcome.stderr
    assert outcome.stdout.splitlines()[-1] == "identical to the bit: 6 metrics over 2 epochs"
    assert len(client().get_metric_history(runs()[0].info.run_id, "lr")) == 3

    # The new run is an original too.
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", stop_after_the_second)
        assert cifar("reproduce", runs()[0].info.run_id).code == 143
    assert runs()[0].info.status == "KILLED"
    assert runs()[0].data.tags["reproduces"] == runs()[1].info.run_id


def test_a_failure_is_reproduced_too(cifar, runs, tiny_training, monkeypatch):
    from cifar_mlflow.learning.training import Training

    check = Training._check

    def diverging(self, losses, epoch):
        check(self, losses if epoch < 2 else losses * float("nan"), epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_check", diverging)
        assert cifar("train", *tiny_training).code == 5
        (original,) = runs()
        outcome = cifar("reproduce", original.info.run_id)
        assert outcome.code == 0
        assert "the training failed as the original did: the loss is nan at epoch 2, step 1 of 14" in outcome.stderr
        assert outcome.stdout.splitlines()[-1] == "identical to the bit: 6 metrics over 1 epoch"
        assert [run.info.status for run in runs()] == ["FAILED", "FAILED"]
        # A failure of its own is none of the original.
        patch.setattr(Training, "_check", lambda self, losses, epoch: check(self, losses * float("inf"), epoch))
        assert cifar("reproduce", original.info.run_id).code == 5


def test_other_data_are_refused_before_anything_starts(cifar, runs, work, write_npz, tiny_training):
    path = write_npz("mine.npz")
    assert cifar("train", *tiny_training, "--dataset", path, "--epochs", 1).code == 0
    (run,) = runs()
    write_npz("mine.npz", seed=1)
    outcome = cifar("reproduce", run.info.run_id)
    assert outcome.code == 3
    assert f"{path} is not the data that the run {run.info.run_id} trained on (digest " in outcome.stderr
    assert f"recorded {run.data.tags['dataset_digest']}); put the original back" in outcome.stderr
    assert len(runs()) == 1


class TestRefused:
    def test_an_unknown_run(self, cifar):
        outcome = cifar("reproduce", "0" * 32)
        assert outcome.code == 6
        assert f"there is no run {'0' * 32} in sqlite:///" in outcome.stderr

    def test_what_is_no_run_id(self, cifar):
        outcome = cifar("reproduce", "mine")
        assert outcome.code == 6
        assert "'mine' names no model in sqlite" in outcome.stderr

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ({"kind": "sweep"}, "is the parent of a sweep and trained nothing itself; name one of its runs"),
            ({"kind": "job"}, "was made by `mlflow run` for another command and trained nothing"),
            ({}, "(RUNNING) was not recorded by cifar-mlflow, or broke off before its training began"),
        ],
        ids=["sweep", "job", "of other origin"],
    )
    def test_a_run_that_is_no_training(self, cifar, client, runs, tags, message):
        run = client().create_run("0", tags=tags)
        outcome = cifar("reproduce", run.info.run_id)
        assert outcome.code == 6
        assert f"error: the run {run.info.run_id} {message}" in outcome.stderr
        assert len(runs()) == 1

    def test_a_run_without_an_epoch(self, cifar, runs, tiny):
        assert cifar("train", "--dataset", tiny, *DIVERGING).code == 5
        (run,) = runs()
        outcome = cifar("reproduce", run.info.run_id)
        assert outcome.code == 6
        assert f"the run {run.info.run_id} (FAILED) has no epoch to compare with" in outcome.stderr
        assert cifar("reproduce", run.info.run_id, "--print-command").code == 0

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "give a RUN or --of-version, one of the two"),
            (["0" * 32, "--of-version", "x@y"], "give a RUN or --of-version, one of the two"),
            (["0" * 32, "--threads", "0"], "--threads: '0' is refused: must be auto or a whole number from 1 to 1024"),
            (["0" * 32, "--precision", "half"], "--precision: 'half' is not one of auto, float32, bfloat16"),
            (["0" * 32, "--tolerance", "nan"], "--tolerance: nan is refused: must be a number, 0 or more"),
            (["0" * 32, "--tolerance", "-1"], "--tolerance: -1.0 is refused"),
        ],
    )
    def test_wrong_options(self, cifar, words, message):
        outcome = cifar("reproduce", *words)
        assert outcome.code == 2
        assert message in outcome.stderr
