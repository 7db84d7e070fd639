"""A store or a model that cannot be used is told soon, in one message, without secrets, and leaves no run running."""

import http.server
import socket
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from support import QuietServer

STORE, MODEL = 4, 6
TOLD_WITHIN = 10  # seconds


@pytest.fixture
def refused_store(refused, monkeypatch, tiny):
    """As `refused`, for a training into the store at a URI; within ten seconds, and without its password."""

    def check(uri, message):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        started = time.monotonic()
        outcome = refused(STORE, message, "train", "--dataset", tiny, "--epochs", 1)
        assert time.monotonic() - started < TOLD_WITHIN
        assert "secret" not in outcome.output
        return outcome

    return check


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://user:secret@host", "MLFLOW_TRACKING_URI=ftp://***@host cannot be tracked to; give a URI that starts"),
        ("htpp://host", "MLFLOW_TRACKING_URI=htpp://host cannot be tracked to; give a URI that starts with http"),
        ("databricks", "MLFLOW_TRACKING_URI=databricks cannot be tracked to; give a URI that starts with http"),
        ("http://[::1", "MLFLOW_TRACKING_URI=http://[::1 is no URI (Invalid IPv6 URL)"),
        ("http://host:99999", "Invalid url"),
        ("mlruns", "MLFLOW_TRACKING_URI=mlruns is a directory, which MLflow no longer tracks to; use for example"),
        ("file:///tmp/mlruns", "use for example sqlite:////tmp/mlruns/mlflow.db"),
        ("sqlite://", "names no file, so all would be forgotten; give for example sqlite:///mlflow.db"),
        ("postgresql://user:secret@127.0.0.1:1/db", "no database server answers at postgresql://***@127.0.0.1:1/db ("),
        ("http://user:secret@no-such-host.invalid:5000", "no MLflow server answers at http://***@no-such-host.invalid"),
    ],
)
def test_a_wrong_uri(refused_store, uri, message):
    refused_store(uri, message)


def test_a_port_where_no_server_listens(refused_store):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        outcome = refused_store(f"http://user:secret@127.0.0.1:{port}", "no MLflow server answers at http://***@127.")
    assert "Start one (`mlflow server`)" in outcome.stderr


def test_a_server_that_never_answers(refused_store):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        refused_store(f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}", "no MLflow server answers at")


def test_a_database_whose_driver_is_not_installed(refused_store):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        uri = f"postgresql+pg8000://user:secret@127.0.0.1:{listening.getsockname()[1]}/db"
        refused_store(
            uri, "needs a package for its database or its artifacts that is not here (No module named 'pg8000')"
        )


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, b"oops", "too many 500 error responses"),
        (401, b"who are you?", "refuses access (API request to endpoint"),
        (403, b"no", "the user user may not do this, or it is not there: a server with users answers the same"),
        (404, b"nothing here", "failed with error code 404"),
        (200, b"<html>Welcome</html>", "the response body was not in a valid JSON format"),
        (200, b"{}", "does not answer as an MLflow server: its runs have no id"),
    ],
)
def test_a_server_of_another_kind(refused_store, status, body, message):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *words):
            pass

    with QuietServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        refused_store(f"http://user:secret@127.0.0.1:{server.server_port}", message)
        server.shutdown()


@pytest.mark.parametrize("path", ["/proc/mlflow.db", "/sys/mlflow.db", "{work}", "{work}/file/mlflow.db"])
def test_a_store_that_cannot_be_written(refused_store, work, path):
    (work / "file").write_text("")
    message = "cannot be written ("
    refused_store(f"sqlite:///{path.format(work=work)}", message)


def test_a_text_file_as_store(refused_store, work):
    (work / "notes.db").write_text("these are my notes\n" * 100)
    refused_store("sqlite:///notes.db", f"sqlite:///{work}/notes.db is not an SQLite database; move the file away")


def test_a_store_of_another_version_of_mlflow(refused_store, work, empty_store):
    (work / "future.db").write_bytes(empty_store.read_bytes())
    with sqlite3.connect(work / "future.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    outcome = refused_store("sqlite:///future.db", "future.db was written by another version of MLflow")
    assert "if it is newer, install that version of MLflow" in outcome.stderr


def test_a_deleted_experiment(refused, client, tiny):
    client().delete_experiment(client().create_experiment("gone"))
    message = "the experiment 'gone' was deleted; restore it with `mlflow experiments restore -x 1`"
    refused(STORE, message, "train", "--dataset", tiny, "--experiment", "gone")


# -------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("f" * 32, f"there is no run {'f' * 32} in sqlite:///"),
        ("mymodel", "'mymodel' names no model in sqlite:///"),
        ("models:/m-123", "there is no model models:/m-123 in sqlite:///"),
        ("models:/net/1", "there is no registered model 'net' in sqlite:///"),
        ("models:/net@champion", "there is no registered model 'net' in sqlite:///"),
        ("models:/net", "models:/net names no version; give models:/NAME/VERSION or models:/NAME@ALIAS"),
    ],
)
def test_no_such_model(refused, model, message):
    refused(MODEL, message, "evaluate", model)


def test_a_run_without_a_model(refused, client):
    run = client().create_run("0")
    client().set_terminated(run.info.run_id, "FAILED")
    refused(MODEL, f"the run {run.info.run_id} (FAILED) has no model", "evaluate", run.info.run_id)


def test_a_model_that_another_program_logged(refused, client):
    run = client().create_run("0")
    client().set_terminated(run.info.run_id)
    model = client().create_logged_model("0", source_run_id=run.info.run_id)
    message = f"the model {model.model_id} is PENDING: it was never logged completely"
    refused(MODEL, message, "evaluate", f"models:/{model.model_id}")
    client().finalize_logged_model(model.model_id, "READY")
    message = f"the run {run.info.run_id} was not recorded by cifar-mlflow: it has no dataset digest"
    refused(MODEL, message, "evaluate", f"models:/{model.model_id}")


def test_a_model_whose_files_are_gone(refused, client, trained):
    model = client().get_logged_model(trained.outputs.model_outputs[0].model_id)
    location = Path(model.artifact_location.removeprefix("file://"))
    hidden = location.rename(location.with_name("hidden"))
    try:
        refused(MODEL, f"models:/{model.model_id} cannot be loaded", "evaluate", f"models:/{model.model_id}")
    finally:
        hidden.rename(location)
