"""The thread that delivers, alone with an outbox: how it waits, what it tells, and how it ends."""

import threading
import time
from contextlib import suppress

import pytest
from support import RUN

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import state, worker
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.outbox.worker import DeliveryWorker

DOWN = TrackingError("no MLflow server answers")


class Scripted:
    """In place of a delivery: each record is met by the next of `acts`, an error, a refusal or a call."""

    def __init__(self, outbox, acts):
        self.outbox, self.acts, self.times = outbox, acts, []

    def next(self):
        return self.outbox.next(-1)

    def deliver(self, record):
        self.times.append(time.monotonic())
        act = self.acts.pop(0) if self.acts else None
        if isinstance(act, Exception):
            raise act
        told = act() if callable(act) else act
        self.outbox.mark_delivered(record.number)
        return told

    def mark(self):
        pass


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "one", new=True)


@pytest.fixture
def started(outbox, monkeypatch):
    """Starts a worker on the outbox, with so many records, of which each is met by the next act."""
    running = []

    def start(*acts, records=1):
        for _ in range(records):
            outbox.append("run", **RUN)
        script = Scripted(outbox, list(acts))
        monkeypatch.setattr(worker, "Delivery", lambda store, outbox: script)
        running.append(DeliveryWorker(None, outbox))
        return running[-1], script

    yield start
    for each in running:
        with suppress(OSError):  # it was closed
            each.close(0.0)


def until(condition, sleep=time.sleep):
    deadline = time.perf_counter() + 60
    while not condition():
        assert time.perf_counter() < deadline
        sleep(0.005)


def test_the_longer_the_store_is_away_the_less_often_it_is_asked(started, outbox, monkeypatch):
    pauses = []
    monkeypatch.setattr(DeliveryWorker, "_pause", lambda self, seconds: pauses.append(seconds))
    started(*[DOWN] * 6, None, DOWN, None, records=2)
    until(lambda: not outbox.pending)
    assert pauses == [*worker.PAUSES, worker.PAUSES[-1], worker.PAUSES[-1], worker.PAUSES[0]]


def test_a_pause_is_no_shorter_because_something_is_written_meanwhile(started, outbox, monkeypatch):
    monkeypatch.setattr(worker, "PAUSES", (0.2,))
    delivering, script = started(DOWN)
    until(lambda: delivering.trouble)
    for _ in range(5):
        delivering.wake()
    until(lambda: not outbox.pending)
    assert script.times[1] - script.times[0] >= 0.2


def test_a_pause_ends_when_all_ends(started, outbox, monkeypatch):
    monkeypatch.setattr(worker, "PAUSES", (3600.0,))
    delivering, _ = started(*[DOWN] * 9)
    until(lambda: delivering.trouble)
    assert delivering.close(0.0) == 1
    assert not state.is_busy(outbox.directory)


@pytest.mark.parametrize(
    ("error", "told"), [(DOWN, "no MLflow server answers"), (ValueError("what?"), "ValueError: what?")]
)
def test_trouble_is_told_while_it_lasts(started, outbox, monkeypatch, error, told):
    paused, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(DeliveryWorker, "_pause", lambda self, seconds: paused.set() or go_on.wait(30))
    delivering, _ = started(error)
    assert paused.wait(30)
    assert delivering.trouble == told
    go_on.set()
    until(lambda: not outbox.pending)
    until(lambda: delivering.trouble is None)


@pytest.mark.parametrize(("size", "trouble"), [(0, "no answer for 0 s"), (10_000_000, None)])
def test_silence_is_trouble_unless_an_upload_may_take_as_long(started, outbox, monkeypatch, size, trouble):
    monkeypatch.setattr(worker, "SILENCE", 0.0)
    asked, answer = threading.Event(), threading.Event()
    with (outbox.next_payload() / "large").open("wb") as file:
        file.truncate(size)
    delivering, _ = started(lambda: asked.set() or (answer.wait(30) and None))
    assert asked.wait(30)
    assert delivering.trouble == trouble
    answer.set()
    until(lambda: not outbox.pending)
    assert delivering.trouble is None


def test_the_first_refusal_is_the_one_that_is_told(started, outbox):
    delivering, _ = started(None, "no", "neither", None, records=4)
    until(lambda: not outbox.pending)
    assert delivering.close(1.0) == 0
    assert delivering.refusal == "no"


def test_what_is_written_later_arrives_and_at_the_end_the_outbox_is_gone(started, outbox):
    delivering, script = started()
    until(lambda: not outbox.pending)
    outbox.append("tags", tags={})
    delivering.wake()
    until(lambda: not outbox.pending)
    assert (delivering.close(1.0), len(script.times)) == (0, 2)
    assert not outbox.directory.exists()


def test_a_store_that_takes_nothing_is_given_up(started, monkeypatch):
    monkeypatch.setattr(worker, "PAUSES", (0.01,))
    delivering, _ = started(*[DOWN] * 10_000)
    assert delivering.close(0.1) == 1


def test_a_store_that_takes_something_is_not_given_up(started, monkeypatch):
    """Each record takes less than the patience, all together more: by the clock of the one who waits."""
    now = [1000.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    turns = threading.Semaphore(0)
    delivering, _ = started(*[lambda: turns.acquire(timeout=30) and None] * 4, records=4)

    def sleep(seconds):
        left = delivering._outbox.pending
        now[0] += 6.0
        turns.release()
        until(lambda: delivering._outbox.pending < left)

    with monkeypatch.context() as patch:
        patch.setattr(worker.time, "sleep", sleep)
        assert delivering.close(10.0) == 0


def test_while_a_request_hangs_the_outbox_stays_taken(started, outbox):
    asked, answer = threading.Event(), threading.Event()
    delivering, _ = started(lambda: asked.set() or (answer.wait(30) and None))
    assert asked.wait(30)
    assert delivering.close(0.0) == 1
    assert state.is_busy(outbox.directory)
    answer.set()
    until(lambda: not state.is_busy(outbox.directory))


def test_a_disk_that_fails_at_the_end_is_no_error(started, outbox, monkeypatch):
    def fail(self):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Scripted, "mark", fail)
    delivering, _ = started()
    until(lambda: not outbox.pending)
    assert delivering.close(1.0) == 0
