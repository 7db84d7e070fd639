"""`train --resume`: what it says, and what is left of checkpoints."""

import signal
from pathlib import Path

import yaml
from mlflow.projects import utils as project_utils
from support import DIVERGING

from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training.progress import TrainingProgress

ROOT = Path(__file__).parents[3]


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


def test_nothing_of_a_finished_run_stays_in_the_state_directory(cifar, run_id, work):
    assert cifar("train", "--resume", run_id).code == 0
    left = [path for path in (work.parent / "state").rglob("*") if path.is_file()]
    assert [path.relative_to(work.parent / "state") for path in left] == [Path("neighbours/records.lock")]
