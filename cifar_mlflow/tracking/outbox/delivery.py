"""Taking an outbox's records to the tracking store: in order, and as often as it takes with the effect of once.

Metric points carry their timestamps, so MLflow keeps each only once; parameters are written only where they are
missing; tags and files are overwritten by themselves. Runs and models, of which each call would make another, carry
an id of ours, by which one that was made already is found again.

Before anything is written it is made sure that the store is the one in which the run is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.text import redact
from cifar_mlflow.tracking import store_identity
from cifar_mlflow.tracking.outbox.legacy import RUN_ID
from cifar_mlflow.tracking.outbox.log import Outbox, Record
from cifar_mlflow.tracking.store import Store, translated_errors
from cifar_mlflow.tracking.writing import model_files
from cifar_mlflow.tracking.writing.recorder import Recorder

if TYPE_CHECKING:
    from mlflow.entities import RunInfo

RUN_TAG = "mlflow.cifar_mlflow.key"  # of a run: drawn before it is made, and the name of its outbox if that was first
PARENT_TAG = "mlflow.parentRunId"
# What records without files call, with their values.
WRITES: dict[str, Callable[..., None]] = {
    "parameters": Recorder.log_parameters,
    "metrics": Recorder.log_metrics,
    "tags": Recorder.set_tags,
    "dataset": Recorder.log_dataset,
    "finish": Recorder.finish,
}
# What MLflow answers to a request that would fail in the same way whenever it is sent.
FINAL = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_STATE",
    "BAD_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
}
BETWEEN_MARKS = 0.5  # seconds; each waits for the disk several times
TO_THIS_STORE = "cifar-mlflow sync --to-this-store"


class Refused(TrackingError):
    """The store will never take this record."""


class NotThisStore(TrackingError):
    """The run of the outbox is in another store, or not in this one any more; nothing was written."""


class Delivery:
    """Delivers one outbox to one store."""

    def __init__(self, store: Store, outbox: Outbox) -> None:
        self._store, self._outbox = store, outbox
        self._recorder: Recorder | None = None
        self._delivered = self._marked = -1  # the last record's number
        self._marked_at = 0.0

    def next(self) -> Record | None:
        """The record that is to be delivered next; None if there is none at the moment."""
        record = self._outbox.next(self._delivered)
        if record is None or time.monotonic() - self._marked_at > BETWEEN_MARKS:
            self.mark()
        return record

    def mark(self) -> None:
        """Notes on disk what has arrived. What was not noted when a process is killed is delivered once more."""
        if self._delivered > self._marked:
            self._outbox.mark_delivered(self._delivered)
            self._marked, self._marked_at = self._delivered, time.monotonic()

    def deliver(self, record: Record) -> str | None:
        """Takes one record to the store, or sets it aside and returns why the store does not take it.

        Raises:
            NotThisStore: its run is not there.
            TrackingError: the store cannot be reached, or the run not be made; try again later.
            OSError: the outbox cannot be read or written; try again later.
        """
        run = self._run()
        try:
            if record.kind in WRITES:
                WRITES[record.kind](run, **record.values)
            elif record.kind == "files":
                run.log_directory(self._payload(record))
            elif record.kind == "model":
                self._log_model(run, record)
        except TrackingError as error:
            if not isinstance(error, Refused) and getattr(error.__cause__, "error_code", None) not in FINAL:
                raise
            self._recorder = None
            self._run()  # raises if it is the whole run that has gone since
            self._outbox.set_aside(record.number, str(error))
            return str(error)
        self._delivered = record.number
        return None

    def _run(self) -> Recorder:
        """The run, looked for once; one that began offline is made."""
        if self._recorder is None:
            run_id = self._outbox.run_id or self._make_run()
            info = self._find(run_id)
            if info is None:
                raise self._elsewhere(f"the run {run_id}")
            if info.lifecycle_stage == "deleted":
                raise TrackingError(
                    f"the run {run_id} was deleted; restore it with `mlflow runs restore --run-id {run_id}`, or, if it "
                    f"is of no use: rm -r {self._outbox.directory}"
                )
            if self._outbox.noted("identity") is None:
                self._note_store(info.experiment_id)
            self._recorder = Recorder(self._store, run_id, info.experiment_id, info.run_name)
        return self._recorder

    def _find(self, run_id: str) -> RunInfo | None:
        try:
            with translated_errors(self._store.uri):
                return self._store.client.get_run(run_id).info
        except TrackingError as error:
            if store_identity.is_missing(error):
                return None
            raise

    def _make_run(self) -> str:
        """Makes the run, unless it was made before the last try was broken off; returns its id."""
        values, name, known = self._first(), self._outbox.directory.name, self._outbox.noted("identity")
        what, parent = f"the run {values['name']} ({name})", values["tags"].get(PARENT_TAG)
        if known and not store_identity.is_same(self._store, known):
            raise self._elsewhere(what)
        if parent and not known and self._find(parent) is None:
            raise self._elsewhere(f"the run {parent}, to which {what} belongs,")
        experiment_id = self._store.experiment_id(values["experiment"])
        self._note_store(experiment_id)  # first: if the answer is lost, no other store makes the run again
        if RUN_ID.fullmatch(name) and self._find(name):
            self._outbox.note("run_id", name)
            return name
        with translated_errors(self._store.uri):
            made = self._store.client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
            run = (
                made[0]
                if made
                else self._store.client.create_run(
                    experiment_id, values.get("timestamp"), {**values["tags"], RUN_TAG: name}, values["name"]
                )
            )
        self._outbox.note("run_id", run.info.run_id)
        return str(run.info.run_id)

    def _first(self) -> dict[str, Any]:
        first = self._outbox.first()
        if first is None or first.kind != "run":
            raise TrackingError(f"{self._outbox.directory} does not tell what its run is: its first record is damaged")
        return first.values

    def _note_store(self, experiment_id: str) -> None:
        self._outbox.note("store", redact(self._store.uri))
        self._outbox.note("identity", store_identity.identity(self._store, experiment_id))

    def _elsewhere(self, what: str) -> NotThisStore:
        here, wanted, known = redact(self._store.uri), self._outbox.noted("store"), self._outbox.noted("identity")
        if here == wanted or (known and store_identity.is_same(self._store, known)):
            return NotThisStore(
                f"{what} was recorded in {here}, but is there no more: it was deleted for good, or the store was put "
                f"back from a backup. To make it anew there: {TO_THIS_STORE}"
            )
        return NotThisStore(
            f"{what} is not in {here}. It was recorded in {wanted or 'another store'}: set "
            f"MLFLOW_TRACKING_URI to that; or, to make it anew in {here}: {TO_THIS_STORE}"
        )

    def begin_anew(self) -> str:
        """Has the run made in this store, with all its records; returns what is to be said of what was before.

        Raises:
            TrackingError: the store cannot be reached; the outbox is as it was.
        """
        before, run_id = self._outbox.noted("store"), self._outbox.run_id
        experiment_id = self._store.experiment_id(self._first()["experiment"])
        identity = store_identity.identity(self._store, experiment_id)
        self._recorder, self._delivered, self._marked = None, -1, -1
        self._outbox.begin_anew(store=redact(self._store.uri), identity=identity)
        told = f"made anew in {redact(self._store.uri)}"
        if run_id is not None:
            told += f"; what {before or 'the store before'} has of it stays there as run {run_id}"
        if not RUN_ID.fullmatch(self._outbox.directory.name):  # see `SpooledRecorder.to`
            told += ", and only there is what it had recorded before it was resumed"
        return told

    def _log_model(self, run: Recorder, record: Record) -> None:
        key = f"{self._outbox.directory.name}-{record.number}"
        payload = self._payload(record)
        try:
            model_files.about(payload)
        except Exception as error:  # whatever is wrong with the file, each parser raises its own
            raise Refused(
                f"the files of write {record.number} in {self._outbox.directory} are damaged ({error})"
            ) from None
        run.log_saved_model(payload, record.values["metrics"], record.values["timestamp"], key)

    def _payload(self, record: Record) -> Path:
        path = self._outbox.payload(record.number)
        if not path.is_dir():
            raise Refused(f"the files of write {record.number} are gone from {self._outbox.directory}")
        return path


def deliver_all(store: Store, outbox: Outbox, *, to_this_store: bool = False) -> str | None:
    """Delivers what is pending, and tries again what was refused; what is refused again is set aside.

    With `to_this_store`, a run that is not in the store is made anew there; returns what is then to be told.

    Raises:
        NotThisStore: the run is not in the store.
        TrackingError: the store cannot be reached; what was delivered so far is marked.
    """
    delivery, told = Delivery(store, outbox), None
    outbox.try_again()
    try:
        while record := delivery.next():
            try:
                delivery.deliver(record)
            except NotThisStore:
                if told or not to_this_store:
                    raise
                told = delivery.begin_anew()
    finally:
        delivery.mark()
    return told
