"""Addresses of stores that cannot be one, and database servers, which are looked for before MLflow does."""

import socket

import pytest
from mlflow.store.model_registry import SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import queries, retry, store, uris


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("mlruns", "is a directory, which MLflow no longer tracks to"),
        ("file:///tmp/mlruns", "is a directory, which MLflow no longer tracks to"),
        ("databricks", "cannot be tracked to; give a URI that starts with http, https, sqlite"),
        ("databricks://profile", "cannot be tracked to"),
        ("ftp://host/x", "cannot be tracked to"),
        ("http://[::1", "is no URI"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_what_is_no_store_is_refused_by_name(uri, told):
    with pytest.raises(TrackingError) as raised:
        uris.absolute(uri)
    assert f"MLFLOW_TRACKING_URI={uri} {told}" in str(raised.value)


@pytest.fixture
def connections(monkeypatch):
    """The addresses that are tried meanwhile; nothing answers there."""
    tried = []

    def refuse(address, timeout):
        tried.append(address)
        raise ConnectionRefusedError("nobody is there")

    monkeypatch.setattr(socket, "create_connection", refuse)
    return tried


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("postgresql+psycopg://u:p@host/db", ("host", 5432)),
        ("postgresql://u:p@host:5000/db", ("host", 5000)),
        ("mysql+pymysql://host/db", ("host", 3306)),
        ("mssql://host/db", ("host", 1433)),
    ],
)
def test_a_database_server_that_is_down_is_told_at_once(connections, uri, address):
    with pytest.raises(TrackingError, match=r"no database server answers at .*nobody is there") as raised:
        store._check_database_server(uri)
    assert connections == [address]
    assert "u:p" not in str(raised.value)


@pytest.mark.parametrize("uri", ["http://host:5000", "sqlite:////x/mlflow.db"])
def test_what_has_no_database_server_is_not_looked_for(connections, uri):
    store._check_database_server(uri)
    assert connections == []


def test_a_port_that_is_no_number_is_refused():
    with pytest.raises(TrackingError, match="no database server answers"):
        store._check_database_server("postgresql://host:none/db")


def test_a_page_is_no_larger_than_a_server_allows():
    assert queries.PAGE <= SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD


def test_a_function_that_is_repeated_keeps_its_name():
    def log_batch():
        """Logs."""

    assert retry.patiently(log_batch).__name__ == "log_batch"
