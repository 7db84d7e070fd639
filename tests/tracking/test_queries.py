"""Requests to the store: what is not there, what the store refuses, and searches of several pages."""

from __future__ import annotations

import pytest

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import queries, store


@pytest.fixture
def connected(cifar):
    return store.connect()


def test_what_is_not_there_is_none(connected):
    assert queries.find(connected.client.get_run, "0" * 32) is None
    assert queries.find(connected.client.get_registered_model, "nobody's") is None


def test_what_is_there_is_returned(connected):
    connected.client.create_registered_model("net")
    assert queries.find(connected.client.get_registered_model, "net").name == "net"


def test_every_call_of_the_client_raises_a_tracking_error_with_mlflows_code(connected):
    connected.client.create_registered_model("net")
    with pytest.raises(TrackingError, match="net") as told:
        connected.client.create_registered_model("net")
    assert queries.error_code(told.value) == "RESOURCE_ALREADY_EXISTS"
    assert queries.error_code(TrackingError("no server answers")) is None


def test_a_fault_of_the_store_is_no_absence(connected, work):
    (work / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(TrackingError, match="is not an SQLite database"):
        queries.find(connected.client.get_run, "0" * 32)


def test_all_pages_are_read(connected, asked, monkeypatch):
    monkeypatch.setattr(queries, "PAGE", 2)
    for number in range(5):
        connected.client.create_experiment(f"experiment {number}")
    asked.clear()
    assert len(queries.search_all(connected.client.search_experiments)) == 6  # with MLflow's Default
    assert asked["search_experiments"] == 3
