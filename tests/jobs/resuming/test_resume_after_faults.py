"""Trainings cut short by a full disk, by Ctrl-C or without their store, and resumed."""

import signal
import subprocess
from pathlib import Path

import pytest

from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training import checkpoints
from cifar_mlflow.jobs.training.progress import TrainingProgress


def test_a_state_directory_that_cannot_be_written_is_told_of_before_a_run_is_made(cifar, runs, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for place, reason in ((tmp_path / "file", "Not a directory"), (Path("/proc/none"), "No such file or directory")):
        monkeypatch.setenv("CIFAR_MLFLOW_STATE", str(place))
        outcome = cifar("train", "--dataset", "digits")
        assert outcome.code == 2
        assert (
            f"{place}/checkpoints cannot be written ({reason}); set CIFAR_MLFLOW_STATE to a directory" in outcome.stderr
        )
    assert runs() == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 50 MB with 2 MB left, the rest taken by the file `filler`."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    (place / "filler").write_bytes(bytes(48 * 2**20))
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_ends_the_training_and_it_goes_on_when_there_is_room(
    cifar, runs, small_disk, tiny_training, trained_once, monkeypatch, work
):
    monkeypatch.setenv("CIFAR_MLFLOW_STATE", str(small_disk))
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    outcome = cifar("train", *tiny_training)
    (run,) = runs()
    place = small_disk / "checkpoints" / run.info.run_id
    assert (outcome.code, run.info.status) == (5, "FAILED")
    assert f"error: no checkpoint can be written to {place} (No space left on device); make room" in outcome.stderr
    assert "saved     epoch 2 of 3 in " in outcome.stderr
    assert sorted(path.name for path in place.iterdir()) == ["000001.checkpoint", "000002.checkpoint"]
    (small_disk / "filler").unlink()
    again = cifar("train", "--resume", run.info.run_id)
    assert again.code == 0
    assert again.stdout.splitlines()[1] == trained_once[1].stdout.splitlines()[1]


def test_two_ctrl_c_leave_a_run_that_can_be_resumed(cifar, spawn, runs, tiny):
    process = spawn("train", "--dataset", tiny, "--epochs", 60, "--scheduler", "none")
    while "epoch  2/60" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    (run,) = runs()
    assert process.returncode == 130
    assert run.info.status == "KILLED"
    assert f"resume    cifar-mlflow train --resume {run.info.run_id}" in stderr
    assert cifar("train", "--resume", run.info.run_id).code == 0
    assert [run.info.status for run in runs()] == ["FINISHED"]


def test_a_run_that_began_offline_is_taken_to_the_store_and_resumed(cifar, runs, client, tiny_training, monkeypatch):
    def interrupt(self, result):
        if result.epoch == 2:
            raise Interrupted(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", interrupt)
        outcome = cifar("train", *tiny_training, "--offline")
    assert runs() == []
    said = next(line for line in outcome.stderr.splitlines() if line.startswith("resume "))
    words = said.removeprefix("resume    cifar-mlflow ").split()
    assert cifar(*words, "--offline").code == 2
    again = cifar(*words)
    (run,) = runs()
    assert again.code == 0, again.stderr
    assert "of the run that had waited on disk" in again.stderr
    assert (run.info.status, run.data.tags["resumed"]) == ("FINISHED", "1")
    assert [point.step for point in client().get_metric_history(run.info.run_id, "val_loss")] == [1, 2, 3]
    assert f"the run {run.info.run_id} is finished" in cifar("train", "--resume", run.info.run_id).stderr


def test_a_training_that_had_ended_and_waited_on_disk_is_delivered(cifar, runs, tiny_training):
    outcome = cifar("train", *tiny_training, "--offline")
    offline_id = outcome.stdout.split()[1]
    again = cifar("train", "--resume", offline_id)
    assert again.code == 0, again.stderr
    assert again.stdout.splitlines()[-1].startswith(f"done: the training of {offline_id} had ended")
    (run,) = runs()
    assert run.info.status == "FINISHED"
    third = cifar("train", "--resume", run.info.run_id)
    assert (third.code, third.stdout) == (6, "")
