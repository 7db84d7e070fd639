"""The bakery itself: who draws is waited for, the smaller number goes first, and one at a time is inside."""

import json
import threading
import time

import pytest

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.registry import lease


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(lease, "POLL", 0.001)


ELSEWHERE = {"host": "another-machine", "boot_id": "of another machine", "machine_id": "another"}


@pytest.fixture
def other(registry):
    """Writes the ticket of a living process of another machine."""

    def write(number, key="other", **tags):
        told = {"number": number, "expires": time.time() + lease.SECONDS, **processes.process_tags(), **ELSEWHERE}
        registry.tags[lease.PREFIX + key] = json.dumps(told | tags)

    return write


@pytest.fixture
def waited(registry):
    """What is told; whoever was waited for goes then."""
    told = []

    def hear(text):
        told.append(text)
        registry.tags.pop(f"{lease.PREFIX}other", None)

    hear.told = told
    return hear


def own(registry):
    return [json.loads(text)["number"] for key, text in registry.tags.items() if key != f"{lease.PREFIX}other"]


def test_a_process_announces_that_it_draws_and_then_draws_a_larger_number(store, registry, other, waited):
    other(7)
    written, real = [], registry.set_registered_model_tag

    def write(name, key, value):
        written.append(json.loads(value)["number"])
        real(name, key, value)

    registry.set_registered_model_tag = write
    with lease.lease(store, "tiny", waited):
        assert own(registry) == [8]
    assert (written, waited.told) == ([0, 8, 8], ["waiting for another promotion of tiny to end"])


def test_the_first_has_number_one(store, registry):
    with lease.lease(store, "tiny") as turn:
        assert own(registry) == [1]
        assert turn.expires == pytest.approx(time.time() + lease.SECONDS, abs=60)
    assert registry.tags == {}


@pytest.mark.parametrize(("number", "waits"), [(0, True), (1, True), (2, True), (3, False)])
def test_who_draws_and_who_has_a_smaller_number_is_waited_for(store, registry, other, waited, number, waits):
    """Of two with the same number the one with the smaller key goes first; `-` comes before every other."""
    other(1, key="early")
    real = registry.set_registered_model_tag

    def write(name, key, value):
        real(name, key, value)
        if json.loads(value)["number"] == 2 and f"{lease.PREFIX}early" in registry.tags:
            # While ours was drawn, the other has drawn too.
            other(number)
            registry.tags[f"{lease.PREFIX}-"] = registry.tags.pop(f"{lease.PREFIX}other")
            del registry.tags[f"{lease.PREFIX}early"]

    def hear(text):
        waited.told.append(text)
        del registry.tags[f"{lease.PREFIX}-"]

    registry.set_registered_model_tag = write
    with lease.lease(store, "tiny", hear):
        pass
    assert bool(waited.told) is waits


def test_who_waits_says_so_once_and_none_need_listen(store, registry, other):
    told, looks = [], []
    real = registry.get_registered_model

    def look(name):
        looks.append(name)
        if len(looks) == 6:
            registry.tags.pop(f"{lease.PREFIX}other", None)
        return real(name)

    registry.get_registered_model = look
    other(1)
    with lease.lease(store, "tiny", told.append):
        pass
    assert len(told) == 1
    looks.clear()
    other(1)
    with lease.lease(store, "tiny"):
        pass


def test_who_waits_long_keeps_its_ticket(store, registry, other, monkeypatch):
    """It is written anew before it expires, and where somebody has removed it."""
    other(1)
    now, real_time = [0.0], time.time
    monkeypatch.setattr(lease.time, "time", lambda: real_time() + now[0])
    seen = []

    def hear(text):
        mine = next(key for key in registry.tags if key != f"{lease.PREFIX}other")
        seen.append(json.loads(registry.tags[mine])["expires"])
        del registry.tags[mine]

    def sleep(seconds):
        seen.append(len(own(registry)))
        now[0] += lease.SECONDS * 0.6
        if len(seen) < 4:
            other(1)  # the other's is renewed too
        else:
            del registry.tags[f"{lease.PREFIX}other"]

    monkeypatch.setattr(lease.time, "sleep", sleep)
    with lease.lease(store, "tiny", hear) as turn:
        assert turn.expires > seen[0] + lease.SECONDS
    assert seen[1:3] == [0, 1]


def test_one_at_a_time(store, registry):
    inside, most = [], []
    guard = threading.Lock()  # of the registry in memory

    def atomic(real):
        def call(*arguments):
            time.sleep(0.0005)
            with guard:
                return real(*arguments)

        return call

    for name in ("get_registered_model", "set_registered_model_tag", "delete_registered_model_tag"):
        setattr(registry, name, atomic(getattr(registry, name)))

    def work():
        for _ in range(3):
            with lease.lease(store, "tiny"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 12
    assert registry.tags == {}


def test_a_lease_that_has_expired_moves_nothing(store, monkeypatch):
    with lease.lease(store, "tiny") as turn:
        turn.check()
        monkeypatch.setattr(lease.time, "time", lambda: turn.expires + 1)
        with pytest.raises(TrackingError, match="nothing was moved, try again"):
            turn.check()


def test_who_has_gone_is_named(store, registry, other):
    other(1)
    assert lease.left_behind(store, "tiny") == []
    told = {**processes.process_tags(), "process_id": "1", "process_ticks": "1", "process_started": "0.0"}
    registry.tags[f"{lease.PREFIX}gone"] = json.dumps({"number": 2, "expires": time.time() + 60, **told})
    assert lease.left_behind(store, "tiny") == [f"process 1 on {told['host']}"]
    assert list(lease._clear(lease._of_model(store, "tiny"))) == [f"{lease.PREFIX}other"]
    assert list(registry.tags) == [f"{lease.PREFIX}other"]


def test_the_clock_of_this_machine_is_compared_with_no_other(store, registry, other, waited):
    """A ticket of this machine may seem to be from the future: its clock was set back."""
    here = {name: processes.process_tags()[name] for name in ELSEWHERE}
    other(1, expires=time.time() + lease.SECONDS + 300, process_id="1", process_ticks="1", **here)
    with lease.lease(store, "tiny", waited):
        pass
    assert waited.told == []


def test_a_clock_is_told_of_once_for_each_machine_and_small_differences_are_not(store, registry, other):
    for number, (host, ahead) in enumerate([("a", 300), ("a", 200), ("b", 100), ("c", 1)]):
        other(number + 1, key=str(number), host=host, expires=time.time() + lease.SECONDS + ahead)
    told = []
    clocks = lease._Clocks(told.append)
    for _ in range(2):
        lease._clear(lease._of_model(store, "tiny"), clocks)
    assert [text.split(" is ")[0] for text in told] == ["the clock of a", "the clock of b"]
    lease._clear(lease._of_model(store, "tiny"), lease._Clocks(None))
