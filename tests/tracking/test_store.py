"""Where runs are tracked: the URI made absolute, secrets never shown, errors turned into what to do."""

import contextlib
import errno
import http.server
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
import requests
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from support import QuietServer

from cifar_mlflow import process_state
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import store
from cifar_mlflow.tracking.store import Store, connect, environment_experiment, redact, translated_errors
from cifar_mlflow.tracking.writing import provenance


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:password@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg://user:p%40ss@host/db", "postgresql+psycopg://***@host/db"),
        ("http://user:p@ss:w@rd@host/x", "http://***@host/x"),
        ("http://token@host", "http://***@host"),
        ("from http://a:b@c to https://d:e@f", "from http://***@c to https://***@f"),
        ("http://host/page?mail=me@home", "http://host/page?mail=me@home"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("no address here", "no address here"),
    ],
)
def test_redact_takes_out_user_and_password(text, shown):
    assert redact(text) == shown


SECRETS = st.text("abcXYZ019!$&*+;=%-._~", min_size=1, max_size=12)


@given(st.sampled_from(["http", "https", "postgresql", "mysql+pymysql"]), SECRETS, SECRETS)
def test_redact_never_shows_a_password(scheme, user, password):
    assert redact(f"cannot reach {scheme}://{user}:{password}@host/path") == f"cannot reach {scheme}://***@host/path"


class TestTheUri:
    def test_is_mlflows_default_in_the_current_directory(self, cifar, work):
        assert connect().uri == f"sqlite:///{work}/mlflow.db"

    def test_is_made_absolute_and_handed_to_child_processes(self, cifar, work, monkeypatch):
        (work / "mlflow.db").rename(work / "other.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
        assert connect().uri == os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{work}/other.db"

    def test_may_name_a_directory_that_is_not_there_yet(self, work, cifar, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///new/place/mlflow.db")
        # What makes a store of it takes seconds; here it only has to be found writable.
        store._check_sqlite(store._absolute_uri("sqlite:///new/place/mlflow.db"))
        assert (work / "new" / "place" / "mlflow.db").exists()

    def test_that_the_caller_gave_to_mlflow_alone_is_theirs_again_after_the_job(self, cifar, work, monkeypatch):
        import mlflow

        mlflow.set_tracking_uri("http://theirs")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        with process_state.preserved():
            assert connect().uri == mlflow.get_tracking_uri() == f"sqlite:///{work}/mlflow.db"
        assert mlflow.get_tracking_uri() == "http://theirs"
        assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///mlflow.db"

    @pytest.mark.parametrize("uri", ["http://host:5000", "https://u:p@host", "postgresql+psycopg://u:p@host/db"])
    def test_of_a_server_stays_what_it_is(self, uri):
        assert store._absolute_uri(uri) == uri


def test_users_without_a_number_can_track_too(cifar, monkeypatch):
    monkeypatch.delattr(os, "getuid")  # as on Windows
    assert connect().uri
    monkeypatch.setattr(provenance.getpass, "getuser", {}.popitem)
    assert provenance.user() == "unknown"


def test_the_short_timeouts_end_with_the_check(cifar):
    connect()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"


def test_timeouts_that_the_user_set_are_kept(cifar, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    connect()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"


class TestAnExperiment:
    def test_is_created_once(self, cifar):
        assert connect().experiment_id("new") == connect().experiment_id("new")

    def test_that_was_deleted_is_not_taken(self, cifar, client):
        client().delete_experiment(connect().experiment_id("gone"))
        with pytest.raises(TrackingError, match=r"'gone' was deleted; restore it with `mlflow experiments restore -x"):
            connect().experiment_id("gone")

    def test_with_an_impossible_name_is_refused_with_mlflows_reason(self, cifar):
        with pytest.raises(TrackingError, match="exceeds the maximum length of 500"):
            connect().experiment_id("x" * 501)

    def test_named_by_an_id_that_is_not_there(self, cifar, monkeypatch):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "777")
        with pytest.raises(TrackingError, match="No Experiment with id=777 exists"):
            environment_experiment(connect())


def test_a_run_of_a_server_has_a_page_without_the_password():
    server = Store(None, "http://user:secret@host:5000/", None)
    assert server.run_url("1", "r") == "http://***@host:5000/#/experiments/1/runs/r?workflowType=machine_learning"
    assert Store(None, "sqlite:////x/mlflow.db", None).run_url("1", "r") is None


# -------------------------------------------------------------------------------------------------- what errors say

LOST = "7401" + "0" * 28  # a run's id that has a status in it


@pytest.fixture
def answering():
    """Starts a server that answers everything alike (None: not at all, but closes the connection); returns its URI."""
    started = []

    def start(status, body=b"", seconds=0.0):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                time.sleep(seconds)
                if status is not None:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *words):
                pass

        server = QuietServer(("127.0.0.1", 0), Answer)
        started.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://user:secret@127.0.0.1:{server.server_port}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def told(monkeypatch):
    """What is told when the run LOST is asked for in the store at `uri`, which is shown as URI."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")

    def ask(uri):
        with pytest.raises(TrackingError) as raised, translated_errors(uri):
            MlflowClient(uri).get_run(LOST)
        assert "secret" not in str(raised.value)
        return str(raised.value).replace(redact(uri), "URI")

    return ask


def as_json(code, message):
    return json.dumps({"error_code": code, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, as_json("RESOURCE_DOES_NOT_EXIST", f"Run {LOST} not found"), f"URI: RESOURCE_DOES_NOT_EXIST: Run {LOST}"),
        (400, as_json("INVALID_PARAMETER_VALUE", "Connection timed out"), "URI: INVALID_PARAMETER_VALUE: Connection"),
        (400, as_json("BAD_REQUEST", "API request to 403"), "URI: BAD_REQUEST: API request to 403"),
        (401, b"who are you?", "URI refuses access (API request to endpoint /api/2.0/mlflow/runs/get failed"),
        (403, b"no", "URI refuses access (API request to endpoint"),
        (
            403,
            as_json("PERMISSION_DENIED", "not yours"),
            "URI refuses access (PERMISSION_DENIED: not yours); set MLFLOW",
        ),
        (
            404,
            b"<html>",
            "no MLflow server answers at URI (API request to endpoint /api/2.0/mlflow/runs/get failed with",
        ),
        (200, b"<html>", "no MLflow server answers at URI (API request to endpoint was successful but the response"),
        (500, b"oops", "no MLflow server answers at URI (too many 500 error responses). Start one (`mlflow server`)"),
        (
            503,
            as_json("TEMPORARILY_UNAVAILABLE", "x"),
            "no MLflow server answers at URI (too many 503 error responses)",
        ),
        (None, b"", "no MLflow server answers at URI (('Connection aborted.', RemoteDisconnected('Remote end closed"),
    ],
)
def test_what_a_server_answers(answering, told, status, body, message):
    assert told(answering(status, body)).startswith(message)


def test_a_server_that_is_too_slow(answering, told):
    assert told(answering(200, b"{}", seconds=3)).startswith("no MLflow server answers at URI (timed out)")


def test_a_port_at_which_nothing_listens(told):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{reserved.getsockname()[1]}"
        assert told(uri).startswith("no MLflow server answers at URI (Connection refused). Start one")


def test_artifacts_that_a_server_refuses(answering, work):
    for status, message in ((403, "URI refuses access (403 Client Error"), (404, "URI: 404 Client Error")):
        with pytest.raises(TrackingError) as raised, translated_errors("URI"):
            requests.get(answering(status)).raise_for_status()
        assert str(raised.value).startswith(message)


def a_locked_database(work):
    holder = sqlite3.connect(work / "x.db", timeout=0)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        sqlite3.connect(work / "x.db", timeout=0).execute("CREATE TABLE t (a)")
    finally:
        holder.close()


def a_locked_database_behind_mlflow(work):
    try:
        a_locked_database(work)
    except sqlite3.OperationalError as error:
        raise MlflowException("a summary", error_code=TEMPORARILY_UNAVAILABLE) from error


def a_text_file(work):
    (work / "x.db").write_text("these are my notes\n" * 100)
    with sqlalchemy.create_engine(f"sqlite:///{work}/x.db").connect() as database:
        database.execute(sqlalchemy.text("SELECT * FROM t"))


def a_database_that_may_only_be_read(work):
    sqlite3.connect(work / "x.db").close()
    sqlite3.connect(f"file:{work}/x.db?mode=ro", uri=True).execute("CREATE TABLE t (a)")


def a_directory_as_database(work):
    sqlite3.connect(work)


def a_full_disk(work):
    raise OSError(errno.ENOSPC, "No space left on device")


def a_full_disk_behind_mlflow(work):
    try:
        a_full_disk(work)
    except OSError as error:
        raise MlflowException("a summary") from error


def a_missing_file_with_the_words_of_another_error(work):
    (work / "Connection refused" / "x").read_text()


def a_file_that_mlflow_found_missing(work):
    try:
        (work / "none").read_text()
    except OSError:
        raise MlflowException("No such artifact: none", error_code=RESOURCE_DOES_NOT_EXIST)  # noqa: B904


def a_database_server_that_is_down(work):
    sqlalchemy.create_engine("postgresql+psycopg://u:p@127.0.0.1:1/db").connect()


def an_older_schema(work):
    raise MlflowException("Detected out-of-date database schema (found a, but expected b)")


def no_words(work):
    raise MlflowException("")


def several_lines(work):
    raise MlflowException("\n  Something else\nwith details")


def a_variable_of_mlflows(work):
    from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR as VARIABLE

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE.name, "maybe")
        VARIABLE.get()


def too_many_words(work):
    raise MlflowException("x" * 1000)


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (a_locked_database, "URI is locked by another process; wait for it to end"),
        (a_locked_database_behind_mlflow, "URI is locked by another process; wait for it to end"),
        (a_text_file, "URI is not an SQLite database; move the file away"),
        (a_database_that_may_only_be_read, "URI cannot be written (attempt to write a readonly database); go to"),
        (a_directory_as_database, "URI cannot be written (unable to open database file); go to"),
        (a_full_disk, "URI: no room is left in "),
        (a_full_disk_behind_mlflow, "URI: no room is left in "),
        (a_missing_file_with_the_words_of_another_error, "URI cannot be written ([Errno 2] No such file or directory"),
        (a_file_that_mlflow_found_missing, "URI: No such artifact: none"),
        (a_database_server_that_is_down, "no MLflow server answers at URI (connection failed: connection to server at"),
        (an_older_schema, "URI was written by another version of MLflow (Detected out-of-date database schema (found"),
        (no_words, "URI: MlflowException"),
        (several_lines, "URI: Something else"),
        (a_variable_of_mlflows, "URI: MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR value must be one of"),
        (too_many_words, "URI: " + "x" * 300 + "..."),
    ],
)
def test_errors_say_what_to_do(work, cause, message):
    with pytest.raises(TrackingError) as raised, translated_errors("URI"):
        cause(work)
    text = str(raised.value)
    assert text == message if message.endswith("...") else text.startswith(message)


def test_a_store_with_a_revision_that_this_mlflow_does_not_know(told, work, empty_store):
    (work / "future.db").write_bytes(empty_store.read_bytes())
    with contextlib.closing(sqlite3.connect(work / "future.db")) as database:
        database.executescript("UPDATE alembic_version SET version_num = 'ffffffffffff'; DROP TABLE trace_info")
    text = told(f"sqlite:///{work}/future.db")
    assert text.startswith(
        "URI was written by a newer version of MLflow than is installed here; install that version ("
    )
    assert "ffffffffffff" in text


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), translated_errors("URI"):
        raise ZeroDivisionError


@pytest.mark.long
def test_several_processes_may_make_a_store_at_once(work):
    command = [sys.executable, "-m", "cifar_mlflow", "check"]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr


@pytest.mark.parametrize("name", ["MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
def test_a_variable_that_is_no_number_is_told_before_anything_starts(cifar, monkeypatch, name):
    monkeypatch.setenv(name, "abc")
    outcome = cifar("check")
    assert (outcome.code, outcome.stderr) == (
        2,
        f"error: 1 fault in the environment:\n  - {name}='abc' is no whole number\n",
    )
