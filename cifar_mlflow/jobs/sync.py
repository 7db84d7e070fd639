"""Take to the tracking store what could not be delivered when it was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.jobs.listener import say
from cifar_mlflow.text import count, redact
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.outbox import delivery, log, state
from cifar_mlflow.tracking.outbox.log import Spool
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing.recorder import mark_job


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


@process_state.preserved()
def sync() -> SyncOutcome:
    """Delivers every spool of this machine; may be repeated as often as wanted.

    Raises:
        TrackingError: the store cannot be reached.
    """
    store = tracking_store.connect()
    mark_job(store)
    say(f"delivering to {redact(store.uri)}")
    return deliver(store, lambda tags: True)


def deliver(store: Store, which: Callable[[dict[str, str]], bool]) -> SyncOutcome:
    """Delivers the spools of those runs whose first tags `which` accepts."""
    outcome = SyncOutcome()
    for directory in log.spools(spool_directory()):
        if which(log.first_record(directory).get("tags", {})):
            deliver_one(store, directory, outcome)
    return outcome


def deliver_one(store: Store, directory: Path, outcome: SyncOutcome) -> None:
    """Delivers one spool, and adds what became of it to `outcome`."""
    name = str(log.first_record(directory).get("name", directory.name))
    try:
        opened = Spool(directory)
    except TrackingError as error:
        if not state.is_busy(directory):
            outcome.waiting[name] = str(error)
        else:
            outcome.busy.append(name)
        return
    try:
        if opened.damaged:
            outcome.damaged[name] = opened.damaged
        refused = delivery.deliver_all(store, opened)
        outcome.delivered.append(f"{name} (run {opened.run_id})")
        if refused:
            outcome.refused[name] = refused
    except TrackingError as error:
        outcome.waiting[name] = str(error)
    except Exception as error:  # whatever a broken server makes of MLflow's client, it is tried again
        outcome.waiting[name] = redact(f"{type(error).__name__}: {error}")
    finally:
        opened.close()


def hint() -> None:
    """One line on standard error if earlier processes have left spools; only the directory is looked at."""
    if number := len(state.abandoned(spool_directory())):
        wait = "waits" if number == 1 else "wait"
        say(f"{count(number, 'run')} of earlier processes {wait} to be delivered or closed: cifar-mlflow doctor")


def tell(outcome: SyncOutcome) -> None:
    """What was lost or left, on standard error."""
    for name, reasons in outcome.refused.items():
        for reason in reasons:
            say(f"{name}: the store refuses for good: {reason}")
    for name, lost in outcome.damaged.items():
        say(f"{name}: {lost} records were damaged on disk and are lost; what is left of them is kept beside the spool")
    for name in outcome.busy:
        say(f"{name}: still being written by its own process, which delivers it")
