"""`train` that diverges, is interrupted, or runs under `mlflow run`."""

import os
import signal

import pytest
from recorded import artifacts
from support import DIVERGING

from cifar_mlflow.config.training import TrainingConfig


def test_a_diverging_run_fails_and_says_why(cifar, runs, tiny_training):
    outcome = cifar("train", *tiny_training, *DIVERGING)
    (run,) = runs()
    assert outcome.code == 5
    assert "at epoch 1, step 2 of 14. The likely cause is a learning rate that is too high" in outcome.stderr
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"] in outcome.stderr
    assert "Ended after 0 of 3 epochs" in run.data.tags["mlflow.note.content"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_what_it_reached(cifar, spawn, client, runs, tiny, number, code):
    process = spawn("train", "--dataset", tiny, "--epochs", 100_000, "--scheduler", "none")
    reached = ""
    while "epoch      2/100000" not in reached:
        line = process.stderr.readline()
        assert line, f"it ended by itself:\n{reached}"
        reached += line
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    (run,) = runs()
    assert process.returncode == code
    assert stderr.splitlines()[-1] == f"stopped by {number.name}"
    assert "Traceback" not in stderr
    assert run.info.status == "KILLED"
    points = client().get_metric_history(run.info.run_id, "val_accuracy")
    assert [point.step for point in points] == list(range(1, len(points) + 1))
    assert len(points) >= 2
    assert {"config.yaml", "curves.png"} <= artifacts(client(), run)
    assert f"Ended after {len(points)} of 100,000 epochs: stopped by" in run.data.tags["mlflow.note.content"]


class TestUnderMlflowRun:
    """MLflow has made the run, logged what was typed, and tells the run's id."""

    @pytest.fixture
    def project_run(self, cifar, client, monkeypatch):
        def make(**typed):
            run = client().create_run(client().create_experiment("theirs"), run_name="named")
            for name, value in typed.items():
                client().log_param(run.info.run_id, name, value)
            monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
            return run

        return make

    def test_the_run_is_mlflows_and_keeps_what_was_typed(self, project_run, cifar, runs, tiny_training):
        made = project_run(learning_rate="0.0020", epochs="'1'")
        options = ("--learning-rate", "0.0020", "--epochs", 1, "--experiment", "mine")
        outcome = cifar("train", *tiny_training, *options)
        (run,) = runs()
        assert outcome.code == 0
        assert "--experiment and --run-name have no effect under `mlflow run`" in outcome.stderr
        assert (run.info.run_id, run.info.run_name, run.info.status) == (made.info.run_id, "named", "FINISHED")
        assert run.data.params["learning_rate"] == "0.0020"
        assert set(run.data.params) == set(TrainingConfig.model_fields)

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            (
                {"learning-rate": "0.01", "learning_rate": "0.002"},
                "learning_rate: the run has 0.002 already, and 0.01 would",
            ),
            (
                {"learning-rate": "0.02", "learning_rate": "0.010"},
                "learning-rate: the run has 0.02 already, and 0.01 would",
            ),
            ({"seed": "'1'"}, "seed: the run has '1' already, and 0 would be trained"),
        ],
    )
    def test_a_parameter_of_another_value_ends_the_run_before_training(
        self, project_run, cifar, client, tiny_training, typed, said
    ):
        made = project_run(**typed)
        outcome = cifar("train", *tiny_training, "--learning-rate", "0.01")
        run = client().get_run(made.info.run_id)
        assert outcome.code == 2
        assert said in outcome.stderr
        assert (run.info.status, run.data.metrics, run.data.params) == ("FAILED", {}, typed)

    def test_other_spellings_of_one_value_are_one(self, project_run, cifar, client, tiny, tiny_training, monkeypatch):
        monkeypatch.setenv("HOME", str(tiny.parent))
        made = project_run(
            **{"learning-rate": "1e-2", "dataset": "'~/tiny.npz'", "milestones": "'15, 25'", "gamma": "0.20"}
        )
        assert cifar("train", *tiny_training, "--learning-rate", "0.01", "--epochs", 1).code == 0
        assert client().get_run(made.info.run_id).info.status == "FINISHED"

    def test_a_relative_path_is_refused(self, project_run, cifar):
        project_run()
        outcome = cifar("train", "--dataset", "data/tiny.npz", "--data-dir", "here")
        assert outcome.code == 2
        assert "--dataset: 'data/tiny.npz' is relative; give an absolute path under `mlflow run`" in outcome.stderr
        assert "--data-dir: 'here' is relative" in outcome.stderr

    def test_a_run_that_has_ended_is_left_alone(self, trained, cifar, monkeypatch, tiny_training):
        monkeypatch.setenv("MLFLOW_RUN_ID", trained.info.run_id)
        outcome = cifar("train", *tiny_training)
        assert outcome.code == 4
        assert f"the run {trained.info.run_id}, which is FINISHED; unset the variable" in outcome.stderr


def test_a_signal_while_the_run_is_being_made_leaves_none_running(cifar, tiny_training, monkeypatch, runs):
    from cifar_mlflow.tracking.writing.recorder import Recorder

    start = Recorder.start

    def started_at_the_moment_of_a_signal(*arguments):
        run = start(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return run

    monkeypatch.setattr(Recorder, "start", started_at_the_moment_of_a_signal)
    assert cifar("train", *tiny_training).code == 143
    assert [run.info.status for run in runs()] == ["KILLED"]
