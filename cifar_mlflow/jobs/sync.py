"""Take to the tracking store what could not be delivered when it was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.jobs.progress import say
from cifar_mlflow.state import spool_directory
from cifar_mlflow.tracking import delivery, spool
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.recorder import mark_job
from cifar_mlflow.tracking.spool import Spool
from cifar_mlflow.tracking.store import Store


@dataclass
class SyncOutcome:
    """Runs by what became of their spools, and the reason where something did not arrive.

    `refused` are writes that the store will never take, `damaged` records that could not be read; both are lost.
    """

    delivered: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)


def sync() -> SyncOutcome:
    """Delivers every spool of this machine; may be repeated as often as wanted.

    Raises:
        TrackingError: the store cannot be reached.
    """
    store = tracking_store.connect()
    mark_job(store)
    return deliver(store, lambda tags: True)


def deliver(store: Store, which: Callable[[dict[str, str]], bool]) -> SyncOutcome:
    """Delivers the spools of those runs whose first tags `which` accepts."""
    outcome = SyncOutcome()
    for directory in spool.spools(spool_directory()):
        first = spool.first_record(directory)
        if not which(first.get("tags", {})):
            continue
        name = str(first.get("name", directory.name))
        try:
            opened = Spool(directory)
        except TrackingError:
            outcome.busy.append(name)
            continue
        try:
            if opened.damaged:
                outcome.damaged[name] = opened.damaged
            refused = delivery.deliver_all(store, opened)
            outcome.delivered.append(f"{name} (run {opened.run_id})")
            if refused:
                outcome.refused[name] = refused
        except TrackingError as error:
            outcome.waiting[name] = str(error)
        finally:
            opened.close()
    return outcome


def tell(outcome: SyncOutcome) -> None:
    """What was lost or left, on standard error."""
    for name, reasons in outcome.refused.items():
        for reason in reasons:
            say(f"{name}: the store refuses for good: {reason}")
    for name, count in outcome.damaged.items():
        say(f"{name}: {count} records were damaged on disk and are lost; they are kept beside the spool")
    for name in outcome.busy:
        say(f"{name}: still being written by its own process, which delivers it")
