"""Connecting to a store: the run of `mlflow run`, the caller's own run, experiments, and what is refused before."""

import logging
import os
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from cifar_mlflow import process_state
from cifar_mlflow.errors import ConfigurationError, TrackingError
from cifar_mlflow.tracking import queries, store, uris
from cifar_mlflow.tracking.store import Store, active_run, connect, environment_experiment


@pytest.fixture
def ended():
    """No run of the caller's own stays active."""
    yield
    while mlflow.active_run():
        mlflow.end_run()


# --------------------------------------------------------------------------------------------------- of `mlflow run`


def make_run(client, **options):
    return client().create_run(client().create_experiment("theirs"), **options).info.run_id


def test_the_run_that_mlflow_run_has_made_is_named(cifar, client, monkeypatch):
    assert connect().project_run_id is None
    monkeypatch.setenv("MLFLOW_RUN_ID", "")
    assert connect().project_run_id is None
    run_id = make_run(client)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert connect().project_run_id == run_id


def test_a_relative_store_of_mlflow_run_must_have_its_run(cifar, client, work, monkeypatch):
    """`mlflow run` starts the command in another directory, where the same address is another file."""
    run_id = make_run(client)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert connect().project_run_id == run_id
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(TrackingError) as raised:
        connect()
    assert f"{elsewhere}, where it is not the database in which MLflow has made the run {run_id}" in str(raised.value)
    assert list(elsewhere.iterdir()) == []
    (elsewhere / "mlflow.db").touch()
    with pytest.raises(TrackingError, match=r"is relative, and `mlflow run` has started this command in another"):
        connect()
    with sqlite3.connect(elsewhere / "mlflow.db") as database:
        database.execute("CREATE TABLE runs (run_uuid TEXT)")
    with pytest.raises(TrackingError, match="is relative"):
        connect()
    # An absolute address means the same everywhere, and without `mlflow run` nobody has meant another.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    assert connect().project_run_id == run_id


# ------------------------------------------------------------------------------------------- the caller's own run


def test_the_callers_run_is_found_in_this_store_alone(cifar, work, ended, monkeypatch):
    connected = connect()
    assert active_run(connected) is None
    with mlflow.start_run() as mine:
        assert active_run(connected).info.run_id == mine.info.run_id
        # A run of `mlflow run` is no parent of itself.
        assert active_run(Store(connected.client, connected.uri, mine.info.run_id)) is None
    (work / "other.db").write_bytes((work / "mlflow.db").read_bytes())
    with sqlite3.connect(work / "other.db") as database:
        database.execute("DELETE FROM runs")
    with mlflow.start_run(), monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/other.db")
        with process_state.preserved():
            assert active_run(connect()) is None


def test_the_experiment_is_that_of_the_run_else_of_the_name_else_of_the_number(cifar, client, monkeypatch, ended):
    connected = connect()
    assert environment_experiment(connected) is None
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client().create_experiment("by number"))
    assert environment_experiment(connected) == "by number"
    assert environment_experiment(None) is None
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    assert environment_experiment(connected) == environment_experiment(None) == "by name"
    with mlflow.start_run(experiment_id=client().create_experiment("of the run")):
        assert environment_experiment(connected) == "of the run"


# ------------------------------------------------------------------------------------------------------ experiments


def test_an_experiment_that_another_process_makes_meanwhile_is_taken(cifar, client, monkeypatch):
    connected = connect()
    real = connected.client.create_experiment

    def late(name):
        client().create_experiment(name)
        return real(name)

    monkeypatch.setattr(connected.client, "create_experiment", late, raising=False)
    assert connected.experiment_id("new") == client().get_experiment_by_name("new").experiment_id


def test_what_to_do_about_a_deleted_experiment_is_the_callers_word(cifar, client):
    connected = connect()
    client().delete_experiment(connected.experiment_id("gone"))
    with pytest.raises(TrackingError, match=r"restore -x 1`, or name another experiment$"):
        connected.experiment_id("gone")
    with pytest.raises(TrackingError, match=r"restore -x 1`, or leave it$"):
        connected.experiment_id("gone", "leave it")


@pytest.fixture
def keeping(cifar, client):
    """A store, and a function that makes an experiment with its artifacts at a place."""
    connected = connect()

    def make(location):
        return connected, client().create_experiment("kept", artifact_location=location)

    return make


@pytest.mark.parametrize("location", ["{work}/new/place", "file://{work}/new", "s3://bucket/x", "http://host/x"])
def test_artifacts_may_be_where_they_can_be_written_or_elsewhere(keeping, work, location):
    queries.check_artifact_location(*keeping(location.format(work=work)))
    assert not (work / "new").exists()


def test_artifacts_that_cannot_be_written_are_told_with_their_place(keeping):
    connected, experiment_id = keeping("file:///proc/nowhere")
    with pytest.raises(TrackingError) as raised:
        queries.check_artifact_location(connected, experiment_id)
    told = str(raised.value)
    assert told.startswith(
        f"the experiment 'kept' of {connected.uri} keeps its artifacts in file:///proc/nowhere, which"
    )
    assert told.endswith("give yourself the right to write there, or use another experiment")
    with pytest.raises(TrackingError, match=r"another experiment, or have the server take artifacts itself \(mlflow"):
        queries.check_artifact_location(Store(connected.client, "http://host", None), experiment_id)


# -------------------------------------------------------------------------------------------- before anything starts


@pytest.mark.parametrize("name", ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"])
def test_variables_that_are_no_numbers_may_be_any_word(cifar, monkeypatch, name):
    connect()
    assert os.environ[name] == {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}.get(name, "false")
    monkeypatch.setenv(name, "False")
    connect()
    assert os.environ[name] == "False"


def test_a_number_that_is_none_is_a_fault_of_the_environment(cifar, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2.5")
    with pytest.raises(ConfigurationError, match=r"MLFLOW_HTTP_REQUEST_TIMEOUT='2\.5' is no whole number"):
        connect()


def test_while_it_is_checked_a_server_has_seconds_to_answer(cifar, monkeypatch):
    seen = []
    real = store._check_database_server

    def check(uri):
        seen.append([os.environ[f"MLFLOW_HTTP_REQUEST_{each}"] for each in ("TIMEOUT", "MAX_RETRIES")])
        real(uri)

    monkeypatch.setattr(store, "_check_database_server", check)
    connect()
    assert seen == [[str(store.CHECK_TIMEOUT), "0"]]


def test_the_short_time_outs_end_where_the_store_does_not_answer(work, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(TrackingError, match="cannot be written"):
        connect()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://u:secret@127.0.0.1:1/x")
    monkeypatch.setattr(store.socket, "create_connection", lambda *where: SimpleNamespace(close=list))
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(
        TrackingError, match=r"needs a package for its database or its artifacts that is not here .*; install it"
    ):
        connect()


def test_a_server_on_a_socket_of_this_machine_is_not_looked_for_at_a_port(monkeypatch):
    asked = []
    monkeypatch.setattr(store.socket, "create_connection", lambda *where: asked.append(where))
    with pytest.raises(Exception, match=r"."):
        store._check_database_server("postgresql+psycopg:///x?host=/nowhere")
    assert asked == []


def test_a_database_that_is_locked_is_told_after_seconds(work, monkeypatch):
    monkeypatch.setattr(store, "CHECK_TIMEOUT", 0)
    holder = sqlite3.connect(work / "x.db")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store._check_sqlite(uris.sqlite_file(f"sqlite:///{work}/x.db?timeout=3"))
    holder.close()


def test_one_process_at_a_time_initializes_a_store(work):
    first, second = store._lock("sqlite:////a.db"), store._lock("sqlite:////b.db")
    assert Path(first.lock_file) != Path(second.lock_file)
    assert store._lock("sqlite:////a.db").lock_file == first.lock_file
    assert f"-{os.getuid()}-" in first.lock_file


def test_mlflows_own_words_are_left_out_and_come_back(cifar):
    noisy = logging.getLogger("alembic")
    noisy.setLevel(logging.INFO)
    with process_state.preserved():
        connect()
        assert noisy.level == logging.WARNING
    assert noisy.level == logging.INFO


def test_a_database_that_has_optunas_tables_is_refused_by_name(work, monkeypatch):
    import optuna

    optuna.create_study(storage=f"sqlite:///{work}/study.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/study.db")
    with pytest.raises(TrackingError, match="has the tables of Optuna in it; give MLflow a database of its own"):
        connect()
