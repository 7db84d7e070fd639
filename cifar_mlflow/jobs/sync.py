"""Take to the tracking store what could not be delivered when it was written."""

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
from cifar_mlflow.tracking.outbox.log import Busy, Outbox
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing.recorder import mark_job


@dataclass
class SyncOutcome:
    """Runs by what became of their outboxes, and the reason where something did not arrive.

    `refused` are writes that the store does not take; they are kept. `damaged` counts records that could not be read.
    """

    delivered: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)


@process_state.preserved()
def sync(*, to_this_store: bool = False) -> SyncOutcome:
    """Delivers every outbox of this machine; may be repeated as often as wanted.

    A run that is in another store waits; with `to_this_store` it is made anew in this one.

    Raises:
        TrackingError: the store cannot be reached.
    """
    store = tracking_store.connect()
    mark_job(store)
    say(f"delivering to {redact(store.uri)}")
    return deliver(store, lambda tags: True, to_this_store=to_this_store)


def deliver(store: Store, which: Callable[[dict[str, str]], bool], *, to_this_store: bool = False) -> SyncOutcome:
    """Delivers the outboxes of those runs whose first tags `which` accepts."""
    outcome = SyncOutcome()
    for directory in log.outboxes(spool_directory()):
        if which(state.look(directory).tags):
            deliver_one(store, directory, outcome, to_this_store=to_this_store)
    return outcome


def deliver_one(store: Store, directory: Path, outcome: SyncOutcome, *, to_this_store: bool = False) -> None:
    """Delivers one outbox, and adds what became of it to `outcome`."""
    seen = state.look(directory)
    name = f"{seen.name} (run {seen.run_id or directory.name})"
    try:
        opened = Outbox(directory)
    except Busy:
        outcome.busy.append(name)
        return
    except TrackingError as error:
        if log.is_outbox(directory):
            outcome.waiting[name] = str(error)
        return
    try:
        if damaged := int(opened.noted("damaged") or 0):
            outcome.damaged[name] = damaged
        if told := delivery.deliver_all(store, opened, to_this_store=to_this_store):
            say(f"{name}: {told}")
        if refused := opened.refused:
            outcome.refused[name] = refused
        elif opened.run_id:
            outcome.delivered.append(f"{seen.name} (run {opened.run_id})")
    except Exception as error:  # whatever a broken server makes of MLflow's client, it is tried again
        known = isinstance(error, TrackingError)
        outcome.waiting[name] = str(error) if known else redact(f"{type(error).__name__}: {error}")
    finally:
        opened.close()


def hint() -> None:
    """One line on standard error if earlier processes have left outboxes; only the directory is looked at."""
    if number := sum(not state.is_busy(directory) for directory in log.outboxes(spool_directory())):
        wait = "waits" if number == 1 else "wait"
        say(f"{count(number, 'run')} of earlier processes {wait} to be delivered or closed: cifar-mlflow doctor")


def tell(outcome: SyncOutcome) -> None:
    """What was lost or left, on standard error."""
    for name, reasons in outcome.refused.items():
        for reason in reasons:
            say(f"{name}: the store refuses a write, which is kept: {reason}")
    for name, lost in outcome.damaged.items():
        damaged = "damaged on disk and lost; what is left is kept beside the outbox"
        say(f"{name}: {count(lost, 'record')} {damaged}")
    for name in outcome.busy:
        say(f"{name}: still being written by its own process, which delivers it")
