"""A database that is locked or restarted while a network is trained; nothing is lost."""

import contextlib
import shutil
import sqlite3
import time

import forked
import psutil
import pytest
from servers import mlflow_server, postgresql
from through_outages import (
    LONG,
    TRAINING,
    assert_complete,
    assert_never_blocked,
    slow_and_measured,
    the_run,
    wait_for_epochs,
)


@LONG
def test_a_server_that_is_stopped_for_a_minute(work, tiny, tmp_path):
    with mlflow_server(tmp_path) as address:
        training = forked.start(
            work, "train", "--dataset", tiny, *TRAINING, tracking_uri=address, change=slow_and_measured
        )
        client, run_id = the_run(address, work)
        stopped = server_processes(address)
        for process in stopped:
            process.suspend()
        time.sleep(60)
        for process in stopped:
            process.resume()
        outcome = training.wait()
        if outcome.code == 4:
            assert forked.run(work, "sync", tracking_uri=address).code == 0
        assert_complete(client, run_id)
        assert_never_blocked(work)


def server_processes(address):
    """The MLflow server that listens at the address, and its children."""
    port = int(address.rsplit(":", 1)[1])
    mine = psutil.Process().children(recursive=True)
    (found,) = [
        process for process in mine if port in {each.laddr.port for each in process.net_connections() if not each.raddr}
    ]
    return [found, *found.children(recursive=True)]


@LONG
def test_postgresql_behind_the_server_is_restarted(train, work, tmp_path):
    with postgresql() as database, mlflow_server(tmp_path, database.uri) as address:
        training = train(address)
        client, run_id = the_run(address, work)
        database.stop()
        wait_for_epochs(work, 10)
        database.start()
        outcome = training.wait()
        if outcome.code == 4:
            assert forked.run(work, "sync", tracking_uri=address).code == 0
        assert_complete(client, run_id)
        assert_never_blocked(work)


@pytest.mark.parametrize("seconds", [6, pytest.param(30, marks=LONG)])
def test_a_sqlite_store_that_another_process_has_locked(train, work, empty_store, seconds):
    shutil.copy(empty_store, work / "mlflow.db")
    store = f"sqlite:///{work}/mlflow.db"
    training = train(store)
    client, run_id = the_run(store, work)
    with contextlib.closing(sqlite3.connect(work / "mlflow.db", timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        database.execute("COMMIT")
    outcome = training.wait()
    if outcome.code == 4:
        assert forked.run(work, "sync", tracking_uri=store).code == 0
    assert_complete(client, run_id)
    assert_never_blocked(work)
