"""What is tried again: writes that another process was in the way of, and no others."""

import sqlite3

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from sqlalchemy import text

from cifar_mlflow.tracking import retry


@pytest.fixture
def attempts(monkeypatch):
    """Calls a function that raises; returns how often it was tried."""
    monkeypatch.setattr(retry, "PAUSES", (0.0, 0.0))

    def count(action):
        tried = []

        def counted():
            tried.append(1)
            action()

        with pytest.raises((MlflowException, sqlalchemy.exc.SQLAlchemyError)):
            retry.patiently(counted)()
        return len(tried)

    return count


@pytest.fixture
def execute(work):
    """Runs statements in a database with one row, each a transaction."""
    engine = sqlalchemy.create_engine(f"sqlite:///{work}/x.db", connect_args={"timeout": 0})

    def run(*statements):
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    run("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE NOT NULL)", "INSERT INTO t VALUES (1, 'one')")
    yield run
    engine.dispose()


def through_mlflow(action, code):
    """Raises as MLflow does when its database raises."""

    def call():
        try:
            action()
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise MlflowException("a summary", error_code=code) from error

    return call


def test_a_database_that_is_locked(attempts, execute, work):
    holder = sqlite3.connect(work / "x.db")
    holder.execute("BEGIN EXCLUSIVE")
    insert = "INSERT INTO t VALUES (2, 'two')"
    assert attempts(lambda: execute(insert)) == 3
    assert attempts(through_mlflow(lambda: execute(insert), TEMPORARILY_UNAVAILABLE)) == 3
    holder.close()


@pytest.mark.parametrize("row", ["(1, 'two')", "(2, 'one')"])
def test_a_row_that_another_process_has_inserted(attempts, execute, row):
    assert attempts(lambda: execute(f"INSERT INTO t VALUES {row}")) == 3
    assert attempts(through_mlflow(lambda: execute(f"INSERT INTO t VALUES {row}"), BAD_REQUEST)) == 3


def test_a_row_that_is_wrong(attempts, execute):
    assert attempts(lambda: execute("INSERT INTO t VALUES (2, NULL)")) == 1
    assert attempts(lambda: execute("INSERT INTO no_such_table VALUES (2)")) == 1


@pytest.mark.parametrize("state", ["sqlstate", "pgcode"])
def test_postgresql_names_a_row_that_is_there_by_its_code(attempts, state):
    def raise_of(code):
        def action():
            original = type("UniqueViolation", (Exception,), {state: code})("words in any language")
            raise sqlalchemy.exc.IntegrityError("INSERT", {}, original) from original

        return action

    assert attempts(raise_of("23505")) == 3
    assert attempts(raise_of("23502")) == 1


@pytest.mark.parametrize(
    ("code", "message", "times"),
    [
        ("BAD_REQUEST", "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.name", 3),
        ("BAD_REQUEST", 'duplicate key value violates unique constraint "dataset_pk"', 3),
        ("BAD_REQUEST", "NOT NULL constraint failed: runs.name", 1),
        ("INVALID_PARAMETER_VALUE", "the run 'UNIQUE constraint failed' has no such parameter", 1),
        ("RESOURCE_DOES_NOT_EXIST", "there is no run 'database is locked'", 1),
        ("RESOURCE_ALREADY_EXISTS", "Registered Model exists. Error: UNIQUE constraint failed", 1),
    ],
)
def test_what_a_server_tells(attempts, code, message, times):
    def answer():
        raise RestException({"error_code": code, "message": message})

    assert attempts(answer) == times


def test_mlflows_verdict_on_a_row_that_is_there(attempts, execute):
    """As of a parameter with another value: to try again would change nothing."""

    def log():
        try:
            execute("INSERT INTO t VALUES (1, 'one')")
        except sqlalchemy.exc.IntegrityError:
            raise MlflowException("Changing param values is not allowed", INVALID_PARAMETER_VALUE)  # noqa: B904

    assert attempts(log) == 1


def test_what_succeeds_later_is_a_success(monkeypatch, execute):
    monkeypatch.setattr(retry, "PAUSES", (0.0, 0.0))
    rows = iter(["(1, 'one')", "(2, 'one')", "(2, 'two')"])
    retry.patiently(lambda: execute(f"INSERT INTO t VALUES {next(rows)}"))()
    assert list(rows) == []
