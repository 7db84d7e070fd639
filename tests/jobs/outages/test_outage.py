"""A tracking server that goes away, in every way it can, while a network is trained; nothing is lost."""

import time

import forked
import pytest
from mlflow import MlflowClient
from proxy import proxy_before
from servers import free_port, mlflow_server
from through_outages import (
    EPOCHS,
    LONG,
    assert_complete,
    assert_never_blocked,
    the_run,
    wait_for_epochs,
    written_epochs,
)


@pytest.mark.parametrize("mode", ["hang", "500", *(pytest.param(m, marks=LONG) for m in ("refuse", "401", "garbage"))])
def test_a_server_that_comes_back(server, train, work, mode):
    with proxy_before(server) as proxy:
        training = train(proxy.address)
        client, run_id = the_run(server, work)
        proxy.switch(mode)
        wait_for_epochs(work, 15)
        assert len(client.get_metric_history(run_id, "val_accuracy")) < written_epochs(work) - 5
        proxy.switch("pass")
        outcome = training.wait()
    assert outcome.code == 0, outcome.output
    assert "writes waiting" in outcome.stderr
    assert_complete(client, run_id)
    assert_never_blocked(work)
    assert list((work / "state" / "spool").iterdir()) == []


@pytest.mark.parametrize("mode", ["slow", pytest.param("refuse", marks=LONG)])
def test_away_until_after_the_end_then_synced(server, train, work, mode):
    with proxy_before(server) as proxy:
        training = train(proxy.address)
        client, run_id = the_run(server, work)
        proxy.switch(mode)
        outcome = training.wait()
        assert outcome.code == 4, outcome.output
        assert "cifar-mlflow sync" in outcome.stderr.splitlines()[-1]
        assert "accuracy" in outcome.stdout
        assert client.get_run(run_id).info.status == "RUNNING"
        proxy.switch("refuse")
        assert forked.run(work, "sync", tracking_uri=proxy.address).code == 4
        proxy.switch("pass")
        synced = forked.run(work, "sync", tracking_uri=proxy.address)
        assert synced.code == 0, synced.output
        assert run_id in synced.stdout
        assert "nothing waits" in forked.run(work, "sync", tracking_uri=proxy.address).stdout
    assert_complete(client, run_id)
    assert_never_blocked(work)


def test_killed_and_restarted_for_real(train, work, tmp_path):
    port = free_port()
    with mlflow_server(tmp_path, port=port) as address:
        training = train(address)
        _, run_id = the_run(address, work)
    wait_for_epochs(work, 5)
    with mlflow_server(tmp_path, port=port) as address:
        outcome = training.wait()
        if outcome.code == 4:  # it was faster than the server's start
            assert forked.run(work, "sync", tracking_uri=address).code == 0
        assert_complete(MlflowClient(address), run_id)
    assert_never_blocked(work)


def test_offline_from_the_beginning(server, train, work):
    outcome = train("http://127.0.0.1:9", "--offline", "--experiment", "offline").wait()
    assert outcome.code == 0, outcome.output
    assert "cifar-mlflow sync" in outcome.stdout
    for _ in range(2):
        assert forked.run(work, "sync", tracking_uri=server).code == 0
    client = MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name("offline").experiment_id])
    assert_complete(client, run.info.run_id)
    assert run.info.end_time - run.info.start_time > 100 * EPOCHS  # its own times, not those of the delivery


def test_a_dead_server_is_told_of_with_the_way_out(cifar, tiny, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    begun = time.monotonic()
    outcome = cifar("train", "--dataset", tiny)
    assert (outcome.code, time.monotonic() - begun < 10) == (4, True)
    assert "--offline" in outcome.stderr


@pytest.mark.parametrize("kill", [12, *(pytest.param(kill, marks=LONG) for kill in (5, 9, 15, 18, 20))])
def test_sync_killed_in_the_middle_is_done_again(server, train, work, kill):
    name = f"killed-{kill}"
    assert train(None, "--offline", "--experiment", name).wait().code == 0
    assert forked.run(work, "sync", tracking_uri=server, kill_before_write=kill).code == -9
    assert forked.run(work, "sync", tracking_uri=server).code == 0
    client = MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert_complete(client, run.info.run_id)
    assert len(client.search_logged_models([run.info.experiment_id])) == 2
