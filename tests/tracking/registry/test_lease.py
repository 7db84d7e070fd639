"""Turns at a registered model: tickets of those that are gone, and clocks that differ."""

import json
import time

import pytest

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.registry import lease


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(lease, "POLL", 0.001)


@pytest.fixture
def ticket(registry):
    """Leaves a ticket at the registered model, written so many seconds ago."""

    def leave(age=0.0, number=1, key="other", **tags):
        told = {"number": number, "expires": time.time() - age + lease.SECONDS, **processes.process_tags(), **tags}
        registry.tags[lease.PREFIX + key] = json.dumps(told)

    return leave


@pytest.fixture
def heard(registry):
    """What is told; the other ticket goes when this process says that it waits."""
    told = []

    def hear(text):
        told.append(text)
        if "waiting" in text:
            registry.tags.pop(f"{lease.PREFIX}other", None)

    hear.told = told
    return hear


def never(text):
    raise AssertionError(text)


ELSEWHERE = {"host": "another-machine", "boot_id": "of another machine", "machine_id": "another"}


@pytest.mark.parametrize("whose", [{}, ELSEWHERE, {"process_id": "1", "process_started": "0.00"}])
def test_an_expired_ticket_is_over_wherever_it_is_from(store, registry, ticket, whose):
    ticket(lease.SECONDS + 1, **whose)
    with lease.lease(store, "tiny", never):
        pass
    assert registry.tags == {}


def test_a_ticket_whose_removal_failed_does_not_stop_its_own_process(store, registry):
    registry.removals_fail = True
    with lease.lease(store, "tiny"):
        pass
    assert len(registry.tags) == 1
    registry.removals_fail = False
    with lease.lease(store, "tiny", never):
        assert len(registry.tags) == 1
    assert registry.tags == {}


def test_another_turn_in_the_same_process_is_waited_for(store, registry):
    class Waited(Exception):
        pass

    def waited(text):
        raise Waited(text)

    with lease.lease(store, "tiny"), pytest.raises(Waited), lease.lease(store, "tiny", waited):
        pass


def test_who_was_passed_over_moves_nothing(store, registry):
    with lease.lease(store, "tiny") as turn:
        turn.check()
        registry.tags.clear()  # by a process whose clock says that the ticket has expired
        with pytest.raises(TrackingError, match="lost its turn"):
            turn.check()


def test_a_clock_that_is_ahead_is_told(store, heard, ticket):
    ticket(age=-300, **ELSEWHERE)
    with lease.lease(store, "tiny", heard):
        pass
    assert "the clock of another-machine is 300 s ahead of this machine's" in heard.told[0]


def test_a_clock_that_is_behind_is_told_when_its_ticket_comes(store, heard, ticket):
    def hear(text):
        heard(text)
        if "waiting" in text:
            ticket(age=90, number=99, key="late", **ELSEWHERE)

    ticket(**ELSEWHERE)
    with lease.lease(store, "tiny", hear):
        pass
    assert "the clock of another-machine is 90 s behind this machine's" in heard.told[1]


def test_a_ticket_that_was_there_before_tells_nothing_of_clocks(store, heard, ticket):
    ticket(age=90, **ELSEWHERE)
    with lease.lease(store, "tiny", heard):
        pass
    assert len(heard.told) == 1
