"""The thread that delivers: it waits for a healthy store, gives up a dead one, and ends in no silent way."""

import os
import random
import signal
import threading
import time

import forked
import pytest
from mlflow import MlflowClient
from proxy import proxy_before

from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import delivery, state
from cifar_mlflow.tracking.outbox.delivery import deliver_all
from cifar_mlflow.tracking.outbox.log import Busy, Outbox
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.store import connect


@pytest.fixture
def proxied(server, monkeypatch):
    """A store behind a proxy, whose requests are tried once and answered within 20 seconds."""
    with proxy_before(server) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield proxy, connect()


def start(store, name="n"):
    return SpooledRecorder.start(store, "e", name, {"kind": "single"})


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_slow_upload_that_goes_on_is_waited_for(proxied, server):
    proxy, store = proxied
    run = start(store)
    until(lambda: not run.waiting)
    proxy.switch("slow upload")
    run.log_files({"large.bin": random.Random(0).randbytes(400_000)})
    run.finish("FINISHED")
    assert run.close(1.0) == 0
    client = MlflowClient(server)
    assert client.list_artifacts(run.run_id)[0].file_size == 400_000
    assert client.get_run(run.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("mode", ["hang", "500"])
def test_a_store_that_does_not_answer_is_given_up(proxied, mode):
    proxy, store = proxied
    run = start(store)
    until(lambda: not run.waiting)
    proxy.switch(mode)
    run.finish("FINISHED")
    begun = time.monotonic()
    assert run.close(1.0) == 1
    assert time.monotonic() - begun < 4.0


def test_while_a_request_is_under_way_no_other_process_may_send_the_same(proxied):
    proxy, store = proxied
    run = start(store)
    until(lambda: not run.waiting)
    proxy.switch("hang")
    requests = proxy.requests
    run.finish("FINISHED")
    until(lambda: proxy.requests > requests)
    run.close(0.1)
    assert state.is_busy(run.directory)
    with pytest.raises(Busy):
        Outbox(run.directory)
    assert run.waiting == 1


def test_the_users_time_outs_stay_what_they_are(proxied):
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    run = start(proxied[1])
    run.finish("FINISHED")
    run.close()
    assert {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")} == before


def test_a_write_that_the_store_refuses_is_kept_and_the_others_arrive(cifar, client, runs):
    run = start(connect())
    run.set_tags({"no $ign": "is allowed"})
    run.finish("FINISHED")
    assert run.close() == 1
    assert [(found.info.status, found.info.run_id) for found in runs()] == [("FINISHED", run.run_id)]
    for _ in range(2):
        outcome = cifar("sync")
        assert outcome.code == 4
        assert "1 run still waits" in outcome.stderr.splitlines()[-1]
        assert "no $ign" in outcome.stderr.splitlines()[-1]
    outcome = cifar("doctor")
    assert "the store refuses 1 write, kept here" in " ".join(outcome.stdout.split())
    assert cifar("doctor", "--fix").code == 9
    assert [path.name for path in spool_directory().iterdir()] == [run.run_id]


def test_a_disk_that_fails_while_it_marks_ends_nothing(cifar, runs, monkeypatch):
    real, failures = Outbox.mark_delivered, []

    def failing(self, number):
        if len(failures) < 3:
            failures.append(number)
            raise OSError(5, "Input/output error")
        real(self, number)

    monkeypatch.setattr(Outbox, "mark_delivered", failing)
    run = start(connect())
    run.finish("FINISHED")
    assert run.close() == 0
    assert len(failures) == 3
    assert [found.info.status for found in runs()] == ["FINISHED"]


def test_a_run_that_goes_during_its_training_waits_whole(cifar, runs, monkeypatch):
    """The store is put back from a backup: nothing is taken for refused."""
    store = connect()
    run = start(store)
    until(lambda: not run.waiting)
    gone = threading.Event()
    real = delivery.Delivery._find
    monkeypatch.setattr(delivery.Delivery, "_find", lambda self, run_id: None if gone.is_set() else real(self, run_id))
    store.client.delete_run(run.run_id)
    gone.set()
    run.log_metrics({"a": 1.0}, step=1)
    run.finish("FINISHED")
    assert run.close(1.0) == 2
    assert state.look(run.directory).refused == ()
    with pytest.raises(TrackingError, match="--to-this-store"):
        deliver_all(store, Outbox(run.directory))


# ------------------------------------------------------------------------------------------------------ interruptions


def write_until_stopped(uri, name, stop, told):
    """A run that mostly writes, until a signal comes; `told` gets its id and the number of each write."""
    signal.signal(stop, signal.default_int_handler)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    run = start(connect(), name)
    step, file = 0, os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while True:
            step += 1
            run.log_metrics({"a": float(step)}, step=step)
            os.write(file, f"{run.run_id} {step}\n".encode())
    except KeyboardInterrupt:
        run.finish("KILLED")
    run.close(5.0)


def check_stopped(work, cifar, client, seed):
    draw = random.Random(seed)
    stop, told = draw.choice([signal.SIGINT, signal.SIGTERM]), work / f"told{seed}"
    process = forked.start_call(write_until_stopped, f"sqlite:///{work}/mlflow.db", f"n{seed}", stop, told)
    until(lambda: told.exists() and told.read_text(), 60)
    time.sleep(draw.uniform(0, 0.4))
    os.kill(process.pid, stop)
    process.join(60)
    assert process.exitcode == 0
    if (spool_directory()).exists() and list(spool_directory().iterdir()):
        assert cifar("sync").code == 0
    run_id, last = told.read_text().split()[-2:]
    steps = [point.step for point in client().get_metric_history(run_id, "a")]
    # The write that was interrupted may have been done.
    assert steps in (list(range(1, int(last) + 1)), list(range(1, int(last) + 2)))
    assert client().get_run(run_id).info.status == "KILLED"


def test_stopped_while_it_writes(cifar, work, client):
    for seed in range(4):
        check_stopped(work, cifar, client, seed)


@pytest.mark.long
@pytest.mark.parametrize("seeds", [range(start, start + 20) for start in range(4, 164, 20)])
def test_stopped_while_it_writes_at_many_moments(cifar, work, client, seeds):
    for seed in seeds:
        check_stopped(work, cifar, client, seed)
