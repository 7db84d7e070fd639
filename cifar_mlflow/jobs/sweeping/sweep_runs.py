"""The runs of a sweep in its store: what has arrived, what has to be closed, what waits on disk."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from cifar_mlflow.errors import CifarMlflowError, TrackingError
from cifar_mlflow.jobs import sync
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.jobs.sweeping.plan import PlannedRun
from cifar_mlflow.records import RunRecord, TrialOutcome
from cifar_mlflow.text import count
from cifar_mlflow.tracking.reading import claims, runs, sweeps
from cifar_mlflow.tracking.store import Store


class SweepRuns:
    """Those of the sweep `sweep_id`, or of its `parts`, for which there may be `claims`; the driver's `Home`."""

    def __init__(self, store: Store, experiment_id: str, parts: Parts | None) -> None:
        self._store, self._experiment_id, self.parts = store, experiment_id, parts
        self.sweep_id = ""
        self.claims: claims.Claims | None = None

    def renew(self) -> None:
        if self.claims:
            self.claims.renew()

    def recorded(self) -> list[RunRecord]:
        with suppress(CifarMlflowError):
            self.deliver(0)
        return self.records()

    def close_lost(self, reason: str, status: str, lost: PlannedRun) -> None:
        where = self._store, self._experiment_id, self.sweep_id
        sweeps.close_lost(*where, reason, status, self.held(), lost.fingerprint)

    def ended(self, planned: PlannedRun, outcome: TrialOutcome) -> None:
        """The store has it."""

    def is_ours(self, tags: Mapping[str, str]) -> bool:
        """Whether a run with these first tags is of this sweep, and of no part that another process has."""
        return tags.get("sweep_id") == self.sweep_id and (
            self.parts is None or tags.get("part") in (None, *self.parts.names)
        )

    def deliver(self, timeout: float, *, busy_too: bool = False) -> None:
        """Delivers what the workers could not, trying for `timeout` seconds.

        `busy_too` waits for workers that are still writing as well.

        Raises:
            TrackingError: the store still cannot be reached, or a worker does not end; all is kept on disk.
        """
        until = time.monotonic() + timeout
        while True:
            outcome = sync.deliver(self._store, self.is_ours)
            busy = outcome.busy if busy_too else []
            left = outcome.waiting | dict.fromkeys(busy, "still being written by its own process")
            if not left:
                return
            if time.monotonic() > until:
                first = ": ".join(next(iter(left.items())))
                wait = f"on disk, {count(len(left), 'run')} of the sweep still to reach the tracking store ({first})"
                raise TrackingError(f"{wait}; the same command goes on from here")
            time.sleep(1.0)

    def close_abandoned(self, tell: Callable[[str], None] = lambda text: None) -> None:
        waiting = "waiting for the workers of an earlier start to close their runs"
        sweeps.close_abandoned(self._store, self._experiment_id, self.sweep_id, lambda: tell(waiting), self.held())

    def held(self) -> list[str] | None:
        """The parts that no other process may be at work on; None if that is the whole sweep."""
        if self.parts is None:
            return None
        return [f"{number}/{self.parts.of}" for number in (self.claims.taken if self.claims else [])]

    def records(self, *metrics: str) -> list[RunRecord]:
        """The sweep's runs, each of them once, with the values by epoch of `metrics`."""
        found = sweeps.children(self._store, self._experiment_id, self.sweep_id)
        return runs.without_superseded(runs.to_records(self._store, found, metrics))
