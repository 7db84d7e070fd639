"""Whatever dies in the middle of a sweep on two nodes, its table is that of the same sweep on this machine."""

from __future__ import annotations

import contextlib
import re
import signal
import time

import pytest
from servers import free_port, mlflow_server, postgresql
from sweeps_on_ray import check, local_table, wait_for, write_spec

pytestmark = pytest.mark.long
AT_WORK = 2  # one on each node
LONG = {"epochs": 60}  # some seconds each, so that what happens does so in the middle


@pytest.fixture(scope="session")
def spec(tmp_path_factory, tiny):
    return write_spec(tmp_path_factory.mktemp("spec"), tiny, base=LONG)


@pytest.fixture(scope="session")
def expected(spec, tmp_path_factory, empty_store):
    return local_table(spec, tmp_path_factory.mktemp("undisturbed"), empty_store)


class Sweep:
    """The command, which may be started again, with a store that the nodes share."""

    def __init__(self, spawn, spec, nodes) -> None:
        self._spawn, self._words = spawn, ("sweep", spec, "--executor", "ray", "--ray-address", nodes.address)
        self.process = spawn(*self._words)

    def again(self) -> None:
        self.process = self._spawn(*self._words)

    def end(self) -> str:
        _, told = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, told
        return told


@pytest.fixture
def sweep(ray_environment, cifar, spawn, spec, work, runs, monkeypatch):
    """A sweep of four trials, of which each node has one that has ended an epoch."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    started = Sweep(spawn, spec, ray_environment)
    wait_for(lambda: len(at_work(runs)) == AT_WORK, started.process)
    return started


def at_work(runs) -> list:
    return [run for run in runs() if run.info.status == "RUNNING" and "val_accuracy" in run.data.metrics]


def test_a_killed_worker(sweep, ray_environment, runs, expected, work):
    ray_environment.nodes[0].workers()[0].kill()
    assert "the worker process was killed by SIGKILL; it is tried once more" in sweep.end()
    check(runs(), expected, work, again=1)


def test_a_killed_actor(sweep, ray_environment, runs, expected, work):
    ray_environment.nodes[1].actors()[0].kill()
    assert f"the worker on {ray_environment.hosts[1]} is gone (its process has ended); it is tried" in sweep.end()
    check(runs(), expected, work, again=1)


def test_a_killed_node_that_comes_back(sweep, ray_environment, runs, expected, work):
    node = ray_environment.nodes[1]
    node.kill()
    try:
        told = sweep.end()
        # Which of the two Ray sees first is a matter of milliseconds.
        gone = (
            rf"the worker on {ray_environment.hosts[1]} is gone \(its (node was lost|process has ended)\); it is tried"
        )
        assert len(re.findall(gone, told)) == 1
        check(runs(), expected, work, again=1)
    finally:
        node.start()


def test_a_node_without_network(sweep, ray_environment, runs, expected, work):
    if not ray_environment.is_divided:
        pytest.skip("the nodes have one network")
    ray_environment.cut()
    try:
        told = sweep.end()
    finally:
        ray_environment.cut(False)
        ray_environment.nodes[1].kill()
        ray_environment.nodes[1].start()
    assert told.count(f"the worker on {ray_environment.hosts[1]} is gone (its node was lost); it is tried") == 1
    check(runs(), expected, work, again=1)


def test_a_killed_driver_and_the_same_command_again(sweep, ray_environment, runs, expected, work):
    sweep.process.send_signal(signal.SIGKILL)
    sweep.process.wait(30)
    sweep.again()
    sweep.end()
    check(runs(), expected, work, again=AT_WORK)
    assert not any(node.workers() for node in ray_environment.nodes)


@contextlib.contextmanager
def on_a_server(ray_environment, spawn, spec, store, monkeypatch, directory):
    """The sweep, and a function that restarts its tracking server, once both its workers are at work."""
    from mlflow import MlflowClient

    port = free_port()
    with contextlib.ExitStack() as up:
        server = contextlib.ExitStack()
        up.callback(lambda: server.close())
        options = {"port": port, "host": ray_environment.host}
        address = server.enter_context(mlflow_server(directory, store, **options))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

        def runs():
            client = MlflowClient(address)
            return client.search_runs([each.experiment_id for each in client.search_experiments()])

        def restart(seconds: float) -> None:
            server.close()
            time.sleep(seconds)
            server.enter_context(mlflow_server(directory, store, **options))

        sweep = Sweep(spawn, spec, ray_environment)
        wait_for(lambda: len(at_work(runs)) == AT_WORK, sweep.process)
        yield sweep, runs, restart


def test_a_tracking_server_that_is_restarted(ray_environment, spawn, spec, expected, work, monkeypatch):
    with on_a_server(ray_environment, spawn, spec, None, monkeypatch, work) as (sweep, runs, restart):
        restart(20)
        sweep.end()
        check(runs(), expected, work)


def test_postgresql_that_is_restarted(ray_environment, spawn, spec, expected, work, monkeypatch):
    with (
        postgresql() as database,
        on_a_server(ray_environment, spawn, spec, database.uri, monkeypatch, work) as (sweep, runs, _),
    ):
        database.stop()
        time.sleep(20)
        database.start()
        sweep.end()
        check(runs(), expected, work)
