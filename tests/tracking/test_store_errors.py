"""Stores that cannot be used: each error says what to do."""

import contextlib
import errno
import sqlite3

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.store import translated_errors


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
