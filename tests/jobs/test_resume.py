"""`train --resume`: what it says, what it refuses, and what is left of checkpoints."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow.projects import utils as project_utils
from support import DIVERGING, TINY_TRAINING, move_store, run_here, standing_in, tiny_arrays

from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training import checkpoints
from cifar_mlflow.jobs.training.progress import TrainingProgress

ROOT = Path(__file__).parents[2]


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


@pytest.fixture
def refused(cifar, client, run_id):
    """Resumes with some words; it must be refused as said, and the run left as it was."""

    def check(code, message, *words, resume=run_id):
        before = client().get_run(run_id)
        outcome = cifar("train", "--resume", resume, *words)
        assert message in outcome.stderr
        assert outcome.code == code
        assert "Traceback" not in outcome.output
        after = client().get_run(run_id)
        assert (before.info.status, before.data.to_dictionary()) == (after.info.status, after.data.to_dictionary())
        return outcome

    return check


class TestAnInterruptedRun:
    def test_says_where_its_checkpoint_is_and_how_to_go_on(self, interrupted_once, interrupted):
        work, outcome = interrupted_once
        run_id = interrupted.info.run_id
        place = work.parent / "state" / "checkpoints" / run_id / "000002.checkpoint"
        assert [line for line in outcome.stderr.splitlines() if line][-3:] == [
            f"saved     epoch 2 of 3 in {place}",
            f"resume    cifar-mlflow train --resume {run_id}",
            "stopped by SIGINT",
        ]
        assert interrupted.info.status == "KILLED"
        assert interrupted.data.tags["failure_type"] == "Interrupted"

    def test_goes_on_as_the_same_run(self, cifar, runs, client, run_id, directory, trained_once):
        outcome = cifar("train", "--resume", run_id)
        (run,) = runs()
        assert outcome.code == 0
        assert f"resuming the run {run_id} (mine-prelu-adam-seed0) after epoch 2 of 3" in outcome.stderr
        assert outcome.stdout.splitlines()[0] == f"run       {run_id} (mine-prelu-adam-seed0)"
        assert (run.info.status, run.data.tags["resumed"]) == ("FINISHED", "1")
        assert "failure" not in run.data.tags
        assert "failure_type" not in run.data.tags
        assert [point.step for point in client().get_metric_history(run_id, "val_loss")] == [1, 2, 3]
        # The tiny dataset is the same one.
        assert outcome.stdout.splitlines()[1] == trained_once[1].stdout.splitlines()[1]
        assert not directory.exists()

    def test_takes_options_that_say_the_same(self, cifar, run_id, work):
        (work / "same.yaml").write_text(yaml.safe_dump({"epochs": 3, "batch_size": 8}))
        words = ("--learning-rate", "0.0020", "--config", "same.yaml", "--experiment", "mine")
        assert cifar("train", "--resume", run_id, *words, "--run-name", "mine-prelu-adam-seed0").code == 0

    def test_is_resumed_by_its_entry_point_too(self, run_id, cifar, client, monkeypatch):
        command = project_utils.load_project(str(ROOT)).get_entry_point("resume").compute_command({"run": run_id}, None)
        assert command == f"python -m cifar_mlflow train --resume {run_id} --wait false"
        job = client().create_run("0")
        monkeypatch.setenv("MLFLOW_RUN_ID", job.info.run_id)
        outcome = cifar("train", "--resume", run_id)
        assert outcome.code == 0, outcome.output  # the path was recorded as it holds in the project's directory, too
        assert client().get_run(job.info.run_id).data.tags["kind"] == "job"

    def test_that_is_interrupted_again_says_so_again(self, cifar, run_id, monkeypatch, runs):
        def interrupt(self, images, steps):
            raise Interrupted(signal.SIGTERM)

        monkeypatch.setattr(TrainingProgress, "step", interrupt)
        outcome = cifar("train", "--resume", run_id)
        assert outcome.code == 143
        assert f"resume    cifar-mlflow train --resume {run_id}" in outcome.stderr
        assert "saved     epoch 2 of 3 in " in outcome.stderr
        monkeypatch.undo()
        assert [run.info.status for run in runs()] == ["KILLED"]


class TestWhatIsRefused:
    def test_other_options(self, refused):
        outcome = refused(2, "--epochs: given is 5, the run has 3", "--epochs", 5, "--run-name", "other")
        assert "--run-name: given is other, the run has mine-prelu-adam-seed0" in outcome.stderr
        assert "--resume: a run goes on as it began; leave the other options away" in outcome.stderr

    def test_options_that_do_not_exist(self, refused):
        refused(2, "--optimiser: no such option (did you mean --optimizer?)", "--optimiser", "adam")

    def test_other_data(self, refused, work):
        np.savez(work / "mine.npz", **tiny_arrays(seed=1))
        refused(3, "mine.npz is not the data that the run", "--data-dir", work)

    def test_a_file_of_data_that_is_gone_and_goes_on_where_it_is_now(
        self, refused, cifar, run_id, interrupted_once, work
    ):
        gone = interrupted_once[0] / "mine.npz"
        gone.rename(work / "renamed.npz")
        try:
            told = f"{gone}, on which the run {run_id} trained, is not there; say by --data-dir where it is"
            (work / "mine.npz").unlink()
            refused(3, told)
            assert cifar("train", "--resume", run_id, "--data-dir", "renamed.npz").code == 0
        finally:
            (work / "renamed.npz").rename(gone)

    def test_a_run_that_is_finished(self, refused, cifar, run_id):
        assert cifar("train", "--resume", run_id).code == 0
        refused(6, f"the run {run_id} is finished: nothing of it is left to train")

    def test_what_is_no_run(self, refused, tiny):
        refused(6, "--resume: 'last' names no run; give a run (its id", resume="last")
        refused(6, f"there is no run {'0' * 32} in sqlite", resume="0" * 32)

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ({"kind": "sweep"}, "is the parent of a sweep"),
            ({"kind": "job"}, "was made by `mlflow run` for another command"),
            ({"kind": "trial", "sweep": "quick"}, "belongs to the sweep quick, which repeats it"),
            ({"reproduces": "0" * 32}, f"start that again: cifar-mlflow reproduce {'0' * 32}"),
        ],
        ids=["sweep", "job", "trial", "reproduction"],
    )
    def test_a_run_of_another_kind(self, refused, client, run_id, tags, message):
        for name, value in tags.items():
            client().set_tag(run_id, name, value)
        refused(6, message)

    def test_a_run_that_was_deleted(self, refused, client, run_id):
        client().delete_run(run_id)
        refused(6, f"was deleted; restore it with `mlflow runs restore --run-id {run_id}`")

    def test_a_run_that_is_being_trained(self, refused, client, run_id):
        from cifar_mlflow.tracking.processes import process_tags

        client().update_run(run_id, status="RUNNING")
        for name, value in process_tags().items():
            client().set_tag(run_id, name, value)
        refused(4, f"the run {run_id} is being trained by process {os.getpid()} on ")

    def test_a_run_that_may_be_trained_elsewhere(self, refused, client, run_id, cifar):
        client().update_run(run_id, status="RUNNING")
        for name, value in {"host": "elsewhere", "boot_id": "another"}.items():
            client().set_tag(run_id, name, value)
        outcome = refused(4, "on elsewhere. If that process is gone, say so with\n  python -c ")
        code = outcome.stderr.split('python -c "')[1].split('"')[0]
        exec(code)
        assert client().get_run(run_id).info.status == "KILLED"
        assert cifar("train", "--resume", run_id).code == 0

    def test_a_run_whose_lock_another_process_has(self, refused, directory, run_id):
        from filelock import FileLock

        with FileLock(directory.with_name(f"{run_id}.lock")):
            refused(4, f"the run {run_id} is being trained by another process here")

    def test_a_run_without_checkpoints_that_has_epochs(self, refused, directory, interrupted):
        shutil.rmtree(directory)
        host = interrupted.data.tags["host"]
        refused(6, f"trained on {host}, has 2 epochs and no checkpoint in {directory}; copy that directory from there")

    def test_checkpoints_of_another_configuration(self, refused, client, interrupted, run_id, cifar, directory, runs):
        other = cifar("train", "--dataset", "mine.npz", *TINY_TRAINING, "--epochs", 2, "--batch-norm", "false")
        assert other.code == 0
        client().set_terminated(run_id, "KILLED")
        from cifar_mlflow.learning.checkpoint_files import Checkpoints

        files = Checkpoints(directory)
        saved, _ = files.read()
        files.write({**saved, "config": {**saved["config"], "seed": 7}, "dataset_digest": "other"})
        outcome = refused(2, "--seed: the checkpoint has 7, the run 0")
        assert "dataset digest: it has other, the run " in outcome.stderr

    def test_checkpoints_of_another_run(self, refused, directory):
        from cifar_mlflow.learning.checkpoint_files import Checkpoints

        files = Checkpoints(directory)
        saved, _ = files.read()
        files.write({**saved, "run_id": "0" * 32})
        refused(6, f"{directory} holds checkpoints of another run, {'0' * 32}")

    def test_another_device(self, refused, directory):
        from cifar_mlflow.learning.checkpoint_files import Checkpoints

        files = Checkpoints(directory)
        saved, _ = files.read()
        files.write({**saved, "training": {**saved["training"], "device": "cuda"}})
        refused(2, "--device: the run trains on cuda and cannot go on on cpu")

    def test_checkpoints_that_are_all_damaged(self, refused, directory):
        for path in directory.iterdir():
            path.write_bytes(path.read_bytes()[:-1])
        refused(6, f"000002.checkpoint is damaged (its content does not match its digest); {directory}/000001")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(cifar, run_id, directory, trained_once):
    (directory / "000002.checkpoint").write_bytes(b"")
    outcome = cifar("train", "--resume", run_id)
    assert f"warning: {directory}/000002.checkpoint is damaged" in outcome.stderr
    assert "after epoch 1 of 3" in outcome.stderr
    assert outcome.stdout.splitlines()[1] == trained_once[1].stdout.splitlines()[1]


def test_other_code_is_warned_of_and_recorded(cifar, client, run_id):
    client().set_tag(run_id, "version_torch", "1.0")
    outcome = cifar("train", "--resume", run_id)
    assert "warning: torch: the run had 1.0, here is " in outcome.stderr
    assert client().get_run(run_id).data.tags["resume_differences"].startswith("torch: the run had 1.0, here is ")


def test_a_run_that_diverged_keeps_nothing_and_is_not_resumed(cifar, runs, work, tiny_training):
    outcome = cifar("train", *tiny_training, *DIVERGING)
    (run,) = runs()
    assert "--resume" not in outcome.stderr
    assert not list((work.parent / "state" / "checkpoints").glob("*/*"))
    again = cifar("train", "--resume", run.info.run_id)
    assert again.code == 6
    assert "failed because the loss is inf" in again.stderr or "failed because the loss is nan" in again.stderr
    assert "It would fail again; start another one" in again.stderr


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
    assert "writes of the run had waited on disk; they are delivered" in again.stderr
    assert (run.info.status, run.data.tags["resumed"]) == ("FINISHED", "1")
    assert [point.step for point in client().get_metric_history(run.info.run_id, "val_loss")] == [1, 2, 3]
    assert f"the run {run.info.run_id} is finished" in cifar("train", "--resume", run.info.run_id).stderr


def test_nothing_of_a_finished_run_stays_in_the_state_directory(cifar, run_id, work):
    assert cifar("train", "--resume", run_id).code == 0
    left = [path for path in (work.parent / "state").rglob("*") if path.is_file()]
    assert [path.relative_to(work.parent / "state") for path in left] == [Path("neighbours/records.lock")]


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
