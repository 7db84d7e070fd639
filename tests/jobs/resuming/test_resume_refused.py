"""`train --resume` of what cannot go on: refused, and the run left as it was."""

import os
import shutil

import numpy as np
import pytest
from support import TINY_TRAINING, tiny_arrays


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
