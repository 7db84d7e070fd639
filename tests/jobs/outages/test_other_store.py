"""A run whose last writes wait on disk, and a store that is not its own: nothing is lost, whatever is called there."""

import contextlib
import os
import shutil
import sqlite3
import time

import forked
import pytest
from mlflow import MlflowClient
from support import move_store

EPOCHS = 12


def short_patience_and_slow():
    """In the training's process: epochs that can be told apart, and a short wait at the end."""
    from cifar_mlflow.tracking.outbox import spooled_recorder

    spooled_recorder.DRAIN_TIMEOUT = 1.0
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "1"
    real = spooled_recorder.SpooledRecorder.log_metrics

    def slow(self, *arguments, **options):
        real(self, *arguments, **options)
        time.sleep(0.1)

    spooled_recorder.SpooledRecorder.log_metrics = slow


def store_in(directory):
    return MlflowClient(f"sqlite:///{directory}/mlflow.db")


def all_runs(directory):
    client = store_in(directory)
    return client.search_runs([found.experiment_id for found in client.search_experiments()])


@pytest.fixture(scope="module")
def locked_at_its_end(tmp_path_factory, tiny, empty_store):
    """The directory of a training whose store was locked when it ended, and the run's id."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_store, home)
    training = forked.start(
        home,
        *("train", "--dataset", tiny, "--epochs", EPOCHS, "--batch-size", 40, "--scheduler", "none"),
        change=short_patience_and_slow,
    )
    deadline = time.monotonic() + 120
    while not (found := all_runs(home)) or len(history(home, found[0].info.run_id)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with contextlib.closing(sqlite3.connect(home / "mlflow.db", timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        outcome = training.wait()
        database.execute("COMMIT")
    assert outcome.code == 4, outcome.output
    assert "safe on disk" in outcome.stderr.replace("\n", " ")
    (run,) = all_runs(home)
    assert run.info.status == "RUNNING"
    return home, run.info.run_id


def history(directory, run_id, metric="val_accuracy"):
    return [point.step for point in store_in(directory).get_metric_history(run_id, metric)]


@pytest.fixture
def places(locked_at_its_end, tmp_path, empty_store):
    """home and away, each with a store of its own and the same state directory; and the run's id."""
    home, run_id = locked_at_its_end
    for name in ("home", "away"):
        (tmp_path / name).mkdir()
        shutil.copytree(home / "state", tmp_path / name / "state")
    move_store(home, tmp_path / "home")
    shutil.copy(empty_store, tmp_path / "away")
    # Both begin with the same number of experiments, as stores do in which one training was recorded.
    store_in(tmp_path / "away").create_experiment("tiny")
    return tmp_path / "home", tmp_path / "away", run_id


def assert_complete(directory, run_id):
    run = store_in(directory).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert history(directory, run_id) == list(range(1, EPOCHS + 1))
    assert run.data.params["epochs"] == str(EPOCHS)
    assert len(run.inputs.dataset_inputs) == 1
    models = store_in(directory).search_logged_models([run.info.experiment_id])
    assert sorted(model.tags["weights"] for model in models if str(model.status) == "READY") == ["best", "last"]
    assert "confusion_matrix.png" in {file.path for file in store_in(directory).list_artifacts(run_id)}


def assert_kept(home, away, run_id):
    """What waited is not lost: it arrives where it belongs, and only there."""
    assert all_runs(away) == []
    shutil.rmtree(home / "state")
    shutil.copytree(away / "state", home / "state")
    synced = forked.run(home, "sync")
    assert (synced.code, run_id in synced.stdout) == (0, True), synced.output
    assert_complete(home, run_id)
    assert list((home / "state" / "spool").iterdir()) == []


@pytest.mark.parametrize("command", ["sync", "doctor", "resume"])
def test_in_another_directory(places, command):
    home, away, run_id = places
    words = {"sync": ["sync"], "doctor": ["doctor", "--fix"], "resume": ["train", "--resume", run_id]}[command]
    for _ in range(2):
        outcome = forked.run(away, *words)
        assert outcome.code == (9 if command == "doctor" else 4), outcome.output
        said = " ".join(outcome.output.split())
        assert f"the run {run_id} is not in sqlite:///{away}/mlflow.db. It was recorded in sqlite:///" in said
        assert "sync --to-this-store" in said
    assert_kept(home, away, run_id)


def test_at_another_path_it_is_the_same_store(places, tmp_path):
    home, _, run_id = places
    (tmp_path / "moved").mkdir()
    move_store(home, tmp_path / "moved")
    shutil.move(home / "state", tmp_path / "moved" / "state")
    shutil.rmtree(home)
    outcome = forked.run(tmp_path / "moved", "sync")
    assert outcome.code == 0, outcome.output
    assert_complete(tmp_path / "moved", run_id)


def test_to_this_store_makes_the_run_anew_with_all_it_has(places):
    _, away, run_id = places
    outcome = forked.run(away, "sync", "--to-this-store")
    assert outcome.code == 0, outcome.output
    assert f"stays there as run {run_id}" in " ".join(outcome.stderr.split())
    (run,) = all_runs(away)
    assert run.info.run_id != run_id
    assert_complete(away, run.info.run_id)
    assert "nothing waits" in forked.run(away, "sync").stdout
    assert "is finished" in forked.run(away, "train", "--resume", run_id).stderr


@pytest.mark.parametrize("kill", [1, 3, 9])
def test_to_this_store_killed_in_the_middle_is_done_again(places, kill):
    _, away, _ = places
    assert forked.run(away, "sync", "--to-this-store", kill_before_write=kill).code == -9
    again = forked.run(away, "sync", *(["--to-this-store"] if kill == 1 else []))
    assert again.code == 0, again.output
    (run,) = all_runs(away)
    assert_complete(away, run.info.run_id)


def test_a_store_that_was_put_back_from_a_backup(places):
    home, _, run_id = places
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [run_id])
        database.commit()
    outcome = forked.run(home, "sync")
    assert outcome.code == 4, outcome.output
    assert "put back from a backup" in " ".join(outcome.stderr.split())
    assert all_runs(home) == []
    again = forked.run(home, "sync", "--to-this-store")
    assert again.code == 0, again.output
    (run,) = all_runs(home)
    assert_complete(home, run.info.run_id)
