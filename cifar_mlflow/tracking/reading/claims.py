"""Which process runs which part of a sweep: a tag of the sweep's parent run for each part, written by who runs it.

A process that dies leaves its claim. On this machine that is seen at once. Of another machine's process nothing is
known but that it renews its claim every BEAT seconds: who wants the part watches for SILENCE seconds whether it does.
Clocks are not compared, except that a claim of LONG_AGO is over.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.text import whole_number
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.registry.lease import sweeps_lease
from cifar_mlflow.tracking.store import Store

COUNT_TAG = "parts"  # of the parent: into how many parts its runs are dealt
PREFIX = "part."
BEAT = 30.0
SILENCE = 180.0
LONG_AGO = 900.0
POLL = 3.0  # seconds between two looks at another machine's claim


def running(tags: Mapping[str, str]) -> dict[int, dict[str, Any]]:
    """The claims, by part, of processes that are or may be at work; `tags` are the parent's."""
    parts = {whole_number(name.removeprefix(PREFIX), 0): name for name in tags if name.startswith(PREFIX)}
    found = {number: _read(tags[parts[number]]) for number in sorted(parts) if number}
    return {number: claim for number, claim in found.items() if not _is_over(claim)}


def _read(text: str) -> dict[str, Any]:
    """The claim that a tag holds; one that another hand has damaged is over, so that it keeps nobody waiting."""
    with suppress(ValueError, TypeError, KeyError):
        claim: dict[str, Any] = json.loads(text)
        if isinstance(claim["ended"], bool) and isinstance(claim["key"], str) and float(claim["renewed"]):
            return claim
    return {"ended": True}


def _is_over(claim: Mapping[str, Any]) -> bool:
    if claim["ended"] or processes.is_gone(claim):
        return True
    return processes.is_elsewhere(claim) and time.time() - float(claim["renewed"]) > LONG_AGO


def describe(number: int, count: int | str, claim: Mapping[str, Any]) -> str:
    """part 2/4 (process NUMBER on HOST)."""
    return f"part {number}/{count} ({processes.describe(claim)})"


def forget(store: Store, parent_id: str, tags: Mapping[str, str]) -> None:
    """Removes the parts from the parent: it is divided anew, or not at all."""
    for name in tags:
        if name == COUNT_TAG or name.startswith(PREFIX):
            store.client.delete_tag(parent_id, name)


class Claims:
    """The parts `numbers` of `count`, of which this process has the `taken` ones for itself."""

    def __init__(self, store: Store, experiment_id: str, parent_id: str, numbers: Sequence[int], count: int) -> None:
        self._store, self._experiment_id, self._parent_id = store, experiment_id, parent_id
        self._numbers, self._count, self._key = numbers, count, uuid.uuid4().hex
        self.taken: list[int] = []
        self._renewed = time.monotonic()

    def take(self, on_wait: Callable[[str], None]) -> None:
        """Takes all of them; `on_wait` is told of each that another machine's process may still be running.

        Raises:
            TrackingError: another process runs one of them.
        """
        for number in self._numbers:
            self._take(number, on_wait)

    def _take(self, number: int, on_wait: Callable[[str], None]) -> None:
        first: dict[str, Any] | None = None
        since = 0.0
        while True:
            with sweeps_lease(self._store, self._experiment_id):
                other = running(self._tags()).get(number)
                silent = first is not None and time.monotonic() - since > SILENCE
                if other is None or (silent and other == first):
                    self._write(number)
                    self.taken.append(number)
                    return
            if not processes.is_elsewhere(other) or (first is not None and other != first):
                raise TrackingError(
                    f"{describe(number, self._count, other)} of the sweep is being run; wait for it, or stop it"
                )
            if first is None:
                first, since = other, time.monotonic()
                seconds = f"{SILENCE:.0f} seconds"
                on_wait(f"{describe(number, self._count, other)} is taken up if nothing is heard of it for {seconds}")
            time.sleep(POLL)
            with suppress(TrackingError):
                self.renew()

    def renew(self) -> None:
        """Tells the other machines, now and then, that this process is there.

        Raises:
            TrackingError: another process has taken up a part, since nothing was heard of this one.
        """
        if not self.taken or time.monotonic() - self._renewed < BEAT:
            return
        try:
            tags = self._tags()
        except TrackingError:  # the store is away, for the others too
            return
        for number in self.taken:
            claim = _read(tags.get(f"{PREFIX}{number}", ""))
            if claim.get("key") != self._key:
                by = f" by {processes.describe(claim)}" if "key" in claim else ""
                self.taken.remove(number)
                raise TrackingError(
                    f"part {number}/{self._count} was taken up{by}, since nothing had been heard of this process; it "
                    "ends here, and its runs that are not finished are repeated there"
                )
        with suppress(TrackingError):
            for number in self.taken:
                self._write(number)

    def release(self) -> dict[int, dict[str, Any]]:
        """Gives the parts free; returns the claims of the processes that are still at work on others."""
        with sweeps_lease(self._store, self._experiment_id):
            for number in self.taken:
                self._write(number, ended=True)
            self.taken = []
            return running(self._tags())

    def _tags(self) -> Mapping[str, str]:
        tags: Mapping[str, str] = self._store.client.get_run(self._parent_id).data.tags
        return tags

    def _write(self, number: int, *, ended: bool = False) -> None:
        claim = {"key": self._key, "ended": ended, "renewed": time.time(), **processes.process_tags()}
        self._store.client.set_tag(self._parent_id, f"{PREFIX}{number}", json.dumps(claim))
        self._renewed = time.monotonic()
