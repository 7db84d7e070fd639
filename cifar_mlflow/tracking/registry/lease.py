"""One process at a time at a registered model, or at an experiment's sweeps: Lamport's bakery, with tags as registers.

MLflow has no compare-and-set, but every process can write a tag of its own and read all others. A process draws a
number larger than any it sees, and goes when no living process has a smaller one (Lamport, "A New Solution of
Dijkstra's Concurrent Programming Problem", CACM 17:8, 1974). A process that died with its number is passed over: at
once if it ran on this machine, and in any case when its ticket has expired. Clocks that differ between machines make a
ticket expire too early or too late: that is told, and who lost its turn by it moves nothing.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.store import Store

PREFIX = "mlflow.cifar_mlflow.lease."  # MLflow's UI does not show tags that begin with mlflow.
SECONDS = 120  # that a ticket is valid; what is done under a lease takes a few
POLL = 0.3  # seconds, on average, between two looks at the others
CLOCK_TOLERANCE = 5.0  # seconds by which the clocks of two machines may differ without a word
_in_use: set[str] = set()  # the tickets of this process; of its others the removal failed


@dataclass(frozen=True)
class Counter:
    """Where tickets are drawn: `tags` reads, `write` sets and `remove` deletes tags that all processes see."""

    waited_for: str
    tags: Callable[[], Mapping[str, str]]
    write: Callable[[str, str], object]
    remove: Callable[[str], object]


@dataclass
class Lease:
    """The right to a change, until `expires` (seconds of time.time()) and while `is_held` says so."""

    expires: float
    is_held: Callable[[], bool]

    def check(self) -> None:
        """Raises TrackingError if the lease has expired, here or by another's clock: another may by now be at work."""
        if time.time() > self.expires or not self.is_held():
            raise TrackingError(
                "this process was held up for too long and lost its turn, or the clock of another machine runs ahead; "
                "nothing was moved, try again"
            )


@contextmanager
def lease(store: Store, name: str, on_wait: Callable[[str], None] | None = None) -> Iterator[Lease]:
    """Waits for the turn at the registered model `name`, which must exist; `on_wait` is told once if it has to wait."""
    with _turn(_of_model(store, name), on_wait) as held:
        yield held


@contextmanager
def sweeps_lease(store: Store, experiment_id: str, on_wait: Callable[[str], None] | None = None) -> Iterator[Lease]:
    """Waits for the turn at who runs the sweeps of the experiment; otherwise as `lease`."""
    client = store.client
    counter = Counter(
        "the start of another sweep",
        lambda: client.get_experiment(experiment_id).tags,
        lambda key, value: client.set_experiment_tag(experiment_id, key, value),
        lambda key: client.delete_experiment_tag(experiment_id, key),
    )
    with _turn(counter, on_wait) as held:
        yield held


def _of_model(store: Store, name: str) -> Counter:
    client = store.client
    return Counter(
        f"another promotion of {name}",
        lambda: client.get_registered_model(name).tags,
        lambda key, value: client.set_registered_model_tag(name, key, value),
        lambda key: client.delete_registered_model_tag(name, key),
    )


@contextmanager
def _turn(counter: Counter, on_wait: Callable[[str], None] | None) -> Iterator[Lease]:
    key, clocks = PREFIX + uuid.uuid4().hex, _Clocks(on_wait)
    _in_use.add(key)
    try:
        # A process first announces that it draws, by number 0. Others wait for it, or two might draw the same number.
        _write(counter, key, 0)
        number = 1 + max((ticket["number"] for ticket in _clear(counter, clocks).values()), default=0)
        expires = _write(counter, key, number)
        while _must_wait(found := _clear(counter, clocks), key, number):
            if on_wait:
                on_wait(f"waiting for {counter.waited_for} to end")
                on_wait = None
            if expires - time.time() < SECONDS / 2 or key not in found:
                expires = _write(counter, key, number)
            time.sleep(POLL * random.SystemRandom().uniform(0.5, 1.5))
        yield Lease(_write(counter, key, number), lambda: key in _tickets(counter))
    finally:
        _in_use.discard(key)
        # If this fails, this process passes over the ticket, and others do as soon as it is gone or has expired.
        with suppress(Exception):
            counter.remove(key)


class _Clocks:
    """Tells once of each other machine whose clock differs, by the times in the tickets that come while it looks."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell, self._told = tell, set[str]()
        self._seen: dict[str, float] | None = None  # when each ticket expires that was there at the last look
        self._looked = 0.0

    def look(self, tickets: Mapping[str, Mapping[str, Any]]) -> None:
        now = time.time()
        for key, ticket in tickets.items():
            written, host = ticket["expires"] - SECONDS, str(ticket.get("host"))
            # One that came since the last look was not written before it.
            came = self._seen is not None and self._seen.get(key) != ticket["expires"]
            ahead, behind = written - now, self._looked - written if came else 0.0
            if max(ahead, behind) <= CLOCK_TOLERANCE or host in self._told or not processes.is_elsewhere(ticket):
                continue
            self._told.add(host)
            differs = f"{ahead:.0f} s ahead of" if ahead > behind else f"{behind:.0f} s behind"
            if self._tell:
                self._tell(f"the clock of {host} is {differs} this machine's, which may cost a promotion its turn")
        self._seen, self._looked = {key: ticket["expires"] for key, ticket in tickets.items()}, now


def left_behind(store: Store, name: str) -> list[str]:
    """Who left a ticket at the registered model, and is gone: process NUMBER on HOST."""
    found = _tickets(_of_model(store, name))
    return [processes.describe(ticket) for key, ticket in found.items() if _is_over(key, ticket)]


def clear(store: Store, name: str) -> None:
    """Removes the tickets at the registered model of those that are gone, and those that have expired."""
    _clear(_of_model(store, name))


def _clear(counter: Counter, clocks: _Clocks | None = None) -> dict[str, dict[str, Any]]:
    """Removes the tickets of those that are gone, and those that have expired; returns the others, by key."""
    found = _tickets(counter)
    if clocks:
        clocks.look(found)
    for key in [key for key, ticket in found.items() if _is_over(key, ticket)]:
        del found[key]
        with suppress(Exception):  # another process may have removed it first
            counter.remove(key)
    return found


def _must_wait(found: Mapping[str, Mapping[str, Any]], key: str, number: int) -> bool:
    numbers = {other: ticket["number"] for other, ticket in found.items() if other != key}
    return any(not theirs or (theirs, other) < (number, key) for other, theirs in numbers.items())


def _write(counter: Counter, key: str, number: int) -> float:
    expires = time.time() + SECONDS
    ticket = {"number": number, "expires": expires, **processes.process_tags()}
    counter.write(key, json.dumps(ticket))
    return expires


def _tickets(counter: Counter) -> dict[str, dict[str, Any]]:
    return {key: _ticket(value) for key, value in counter.tags().items() if key.startswith(PREFIX)}


def _ticket(value: str) -> dict[str, Any]:
    """The ticket that a tag holds; one that another hand has changed is as good as expired."""
    with suppress(ValueError, TypeError, KeyError):
        ticket = json.loads(value)
        return {**ticket, "number": int(ticket["number"]), "expires": float(ticket["expires"])}
    return {"number": 0, "expires": 0.0}


def _is_over(key: str, ticket: dict[str, Any]) -> bool:
    if not time.time() <= ticket["expires"]:
        return True
    if processes.is_elsewhere(ticket):
        return False
    ours = processes.process_tags()
    return key not in _in_use if ours.items() <= ticket.items() else not processes.is_alive(ticket)
