"""One process at a time at a registered model, on any store: Lamport's bakery, with tags as its registers.

MLflow has no compare-and-set, but every process can write a tag of its own and read all others. A process draws a
number larger than any it sees, and goes when no living process has a smaller one (Lamport, "A New Solution of
Dijkstra's Concurrent Programming Problem", CACM 17:8, 1974). A process that died with its number is passed over: at
once if it ran on this machine, else when its ticket has expired.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.store import Store

PREFIX = "mlflow.cifar_mlflow.lease."  # MLflow's UI does not show tags that begin with mlflow.
SECONDS = 120  # that a ticket is valid; what is done under a lease takes a few
POLL = 0.3  # seconds, on average, between two looks at the others


@dataclass
class Lease:
    """The right to change a registered model, until `expires` (seconds of time.time())."""

    expires: float

    def check(self) -> None:
        """Raises TrackingError if the lease has expired: another process may by now be at work."""
        if time.time() > self.expires:
            raise TrackingError("this process was held up for too long and lost its turn; nothing was moved, try again")


@contextmanager
def lease(store: Store, name: str, on_wait: Callable[[str], None] | None = None) -> Iterator[Lease]:
    """Waits for the turn at the registered model `name`, which must exist; `on_wait` is told once if it has to wait."""
    key = PREFIX + uuid.uuid4().hex
    try:
        # A process first announces that it draws, by number 0. Others wait for it, or two might draw the same number.
        _write(store, name, key, 0)
        number = 1 + max((ticket["number"] for ticket in clear(store, name).values()), default=0)
        expires = _write(store, name, key, number)
        while _must_wait(store, name, key, number):
            if on_wait:
                on_wait(f"waiting for another promotion of {name} to end")
                on_wait = None
            if expires - time.time() < SECONDS / 2:
                expires = _write(store, name, key, number)
            time.sleep(POLL * random.SystemRandom().uniform(0.5, 1.5))
        yield Lease(_write(store, name, key, number))
    finally:
        # If this fails, others pass over the ticket as soon as this process is gone.
        with suppress(Exception):
            store.client.delete_registered_model_tag(name, key)


def left_behind(store: Store, name: str) -> list[str]:
    """Who left a ticket at the registered model, and is gone: process NUMBER on HOST."""
    return [processes.describe(ticket) for ticket in _tickets(store, name).values() if _is_over(ticket)]


def clear(store: Store, name: str) -> dict[str, dict[str, Any]]:
    """Removes the tickets of those that are gone; returns the others, by key."""
    found = _tickets(store, name)
    for key in [key for key, ticket in found.items() if _is_over(ticket)]:
        del found[key]
        with suppress(Exception):  # another process may have removed it first
            store.client.delete_registered_model_tag(name, key)
    return found


def _must_wait(store: Store, name: str, key: str, number: int) -> bool:
    numbers = {other: ticket["number"] for other, ticket in clear(store, name).items() if other != key}
    return any(not theirs or (theirs, other) < (number, key) for other, theirs in numbers.items())


def _write(store: Store, name: str, key: str, number: int) -> float:
    expires = time.time() + SECONDS
    ticket = {"number": number, "expires": expires, **processes.process_tags()}
    store.client.set_registered_model_tag(name, key, json.dumps(ticket))
    return expires


def _tickets(store: Store, name: str) -> dict[str, dict[str, Any]]:
    tags = store.client.get_registered_model(name).tags
    return {key: json.loads(value) for key, value in tags.items() if key.startswith(PREFIX)}


def _is_over(ticket: dict[str, Any]) -> bool:
    if processes.is_elsewhere(ticket):
        return time.time() > float(ticket["expires"])
    return not processes.is_alive(ticket)
