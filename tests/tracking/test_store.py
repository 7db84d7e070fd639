"""Where runs are tracked: the URI made absolute, secrets never shown, experiments found or made."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_mlflow import process_state
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import store, uris
from cifar_mlflow.tracking.store import Store, connect, environment_experiment, redact
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
        store._check_sqlite(uris.sqlite_file(uris.absolute("sqlite:///new/place/mlflow.db")))
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
        assert uris.absolute(uri) == uri


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
