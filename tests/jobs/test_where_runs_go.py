"""The experiment of a run: its artifacts cannot be written, it was deleted, or the caller has one of their own."""

import os
import shutil
import sqlite3

import mlflow
import pytest
from support import TINY_TRAINING

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.jobs.train import train
from cifar_mlflow.jobs.training.neighbours import Neighbours
from cifar_mlflow.text import first_line

QUICK = (*TINY_TRAINING, "--epochs", "1")


@pytest.fixture
def unwritable(cifar, work, client):
    """An experiment whose artifacts are to be below a file."""
    (work / "a-file").write_text("")
    location = work / "a-file" / "artifacts"
    client().create_experiment("elsewhere", artifact_location=str(location))
    return f"the experiment 'elsewhere' of sqlite:///{work}/mlflow.db keeps its artifacts in {location}, which cannot"


def test_train_is_refused_before_a_run_is_made(cifar, unwritable, tiny, runs):
    outcome = cifar("train", "--dataset", tiny, "--experiment", "elsewhere", *QUICK)
    assert (outcome.code, f"error: {unwritable} be written here (Not a directory)" in outcome.stderr) == (4, True)
    assert runs() == []


def test_sync_and_doctor_name_the_place(cifar, unwritable, tiny, work):
    assert cifar("train", "--dataset", tiny, "--experiment", "elsewhere", "--offline", *QUICK).code == 0
    outcome = cifar("sync")
    assert (outcome.code, f"{unwritable} be written here (Not a directory)" in outcome.stderr) == (4, True)
    looked = cifar("doctor")
    assert looked.code == 9
    assert f"error artifacts {unwritable} be written here" in " ".join(looked.stdout.split())
    (work / "a-file").unlink()
    assert cifar("sync").code == 0


def test_sync_of_a_run_whose_experiment_was_deleted(cifar, client, tiny, work):
    assert cifar("train", "--dataset", tiny, "--experiment", "gone", "--offline", *QUICK).code == 0
    experiment_id = client().create_experiment("gone")
    client().delete_experiment(experiment_id)
    outcome = cifar("sync")
    assert outcome.code == 4
    assert f"restore it with `mlflow experiments restore -x {experiment_id}`, or if the run " in outcome.stderr
    (outbox,) = (work.parent / "state" / "spool").glob("*/")
    assert f"is of no use: rm -r {outbox}" in outcome.stderr
    assert "--experiment" not in outcome.stderr
    client().restore_experiment(experiment_id)
    assert cifar("sync").code == 0


def test_a_training_within_a_run_of_the_callers_is_its_child(cifar, tiny, work, client):
    options = dict(zip(QUICK[::2], QUICK[1::2], strict=True)) | {"--dataset": str(tiny)}
    mlflow.set_tracking_uri(f"sqlite:///{work}/mlflow.db")
    mlflow.set_experiment("the caller's")
    with mlflow.start_run() as parent:
        outcome = train(resolve({name.strip("-").replace("-", "_"): value for name, value in options.items()}))
        assert mlflow.active_run().info.run_id == parent.info.run_id
    child = client().get_run(outcome.run_id)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.experiment_id == parent.info.experiment_id
    assert client().get_run(parent.info.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("already", [False, True])
def test_a_relative_store_under_mlflow_run_from_another_directory(cifar, work, monkeypatch, client, already):
    run_id = client().create_run("0").info.run_id
    project = work / "project"
    project.mkdir()
    if already:
        shutil.copy(work / "mlflow.db", project / "mlflow.db")
        with sqlite3.connect(project / "mlflow.db") as database:
            database.execute("PRAGMA foreign_keys = OFF")
            database.execute("DELETE FROM runs")
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    for command in (("train", "--dataset", "digits", *QUICK), ("check",), ("sync",)):
        outcome = cifar(*command)
        assert outcome.code == 4
        assert "MLFLOW_TRACKING_URI=sqlite:///mlflow.db is relative, and `mlflow run` has started" in outcome.stderr
    assert "is relative" in cifar("doctor").stdout
    assert os.listdir(project) == (["mlflow.db"] if already else [])
    monkeypatch.chdir(work)
    assert cifar("check").code == 0


def test_the_other_trainings_are_told_the_name_that_list_shows(cifar, tiny_training, monkeypatch, client):
    run = client().create_run("0", run_name="spiffy-newt-965")
    told, turn = [], Neighbours.turn
    monkeypatch.setattr(Neighbours, "turn", lambda self, what, place: told.append(what) or turn(self, what, place))
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    assert cifar("train", *tiny_training, "--epochs", "1").code == 0
    assert told == ["spiffy-newt-965"]


def test_what_mlflow_announces_comes_with_its_reason():
    told = "The following failures occurred while downloading one or more artifacts from /x:\n##### File a #####\nfull"
    assert first_line(Exception(told)) == f"{told.splitlines()[0]} File a: full"
