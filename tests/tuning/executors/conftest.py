"""One Ray cluster for all tests that need one."""

from __future__ import annotations

import pytest
import ray_nodes


@pytest.fixture(scope="session")
def nodes():
    with ray_nodes.cluster() as running:
        yield running


@pytest.fixture
def ray_environment(nodes, monkeypatch):
    """The variables by which this process, and those that it starts, are let into the cluster."""
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    return nodes


@pytest.fixture
def log(tmp_path):
    return tmp_path / "workers.log"
