"""Taking an outbox's records to the tracking store: in order, and as often as it takes with the effect of once.

Metric points carry their timestamps, so MLflow keeps each only once; parameters are written only where they are
missing; tags and files are overwritten by themselves. Runs and models, of which each call would make another, carry
an id of ours, by which one that was made already is found again.

Before anything is written it is made sure that the store is the one in which the run is. It is known again, at
another path, under another address or password, by the run's experiment, which keeps its number and the millisecond in
which it was made for ever: no other store has both. Nothing needs to be written for that, and a store that was put back
from a backup is still the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.text import redact
from cifar_mlflow.tracking.outbox.legacy import RUN_ID
from cifar_mlflow.tracking.outbox.log import Outbox, Record
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import model_files
from cifar_mlflow.tracking.writing.recorder import Recorder

if TYPE_CHECKING:
    from mlflow.entities import Run, RunInfo

RUN_TAG = "mlflow.cifar_mlflow.key"  # of a run: drawn before it is made, and the name of its outbox if that was first
PARENT_TAG = "mlflow.parentRunId"
MISSING = "RESOURCE_DOES_NOT_EXIST"  # MLflow's answer if there is no such run or experiment
DENIED = "PERMISSION_DENIED"
# What MLflow answers to a request that would fail in the same way whenever it is sent.
FINAL = {MISSING, "INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
# The recorder's methods for those records that have all in their values.
METHODS: dict[str, Callable[..., None]] = {
    "parameters": Recorder.log_parameters,
    "metrics": Recorder.log_metrics,
    "tags": Recorder.set_tags,
    "dataset": Recorder.log_dataset,
    "finish": Recorder.finish,
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
            self._write(run, record)
        except TrackingError as error:
            if not isinstance(error, Refused) and _code(error) not in FINAL:
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
        run: Run | None = None
        try:
            run = _unless_missing(self._store.client.get_run, run_id)
        except TrackingError as error:
            # A server with users denies what is not there as well. Who may read the experiment may read all its runs.
            if _code(error) != DENIED or not self._is_known():
                raise
        return run.info if run else None

    def _make_run(self) -> str:
        """Makes the run, unless it was made before the last try was broken off; returns its id."""
        values, name = self._first(), self._outbox.directory.name
        what, parent = f"the run {values['name']} ({name})", values["tags"].get(PARENT_TAG)
        if self._outbox.noted("identity"):
            if not self._is_known():
                raise self._elsewhere(what)
        elif parent and self._find(parent) is None:
            raise self._elsewhere(f"the run {parent}, to which {what} belongs,")
        client = self._store.client
        experiment_id = self._store.experiment_id(
            values["experiment"], f"if {what} is of no use: rm -r {self._outbox.directory}"
        )
        self._note_store(experiment_id)  # first: if the answer is lost, no other store makes the run again
        run_id = name
        if not (RUN_ID.fullmatch(name) and self._find(name)):
            found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
            tags = {**values["tags"], RUN_TAG: name}
            run = found[0] if found else client.create_run(experiment_id, values.get("timestamp"), tags, values["name"])
            run_id = str(run.info.run_id)
        self._outbox.note("run_id", run_id)
        return run_id

    def _first(self) -> dict[str, Any]:
        first = self._outbox.first()
        if first is None or first.kind != "run":
            raise TrackingError(f"{self._outbox.directory} does not tell what its run is: its first record is damaged")
        return first.values

    def _note_store(self, experiment_id: str) -> None:
        self._outbox.note("store", redact(self._store.uri))
        self._outbox.note("identity", self._identity(experiment_id))

    def _identity(self, experiment_id: str) -> str:
        """What tells the store, which has this experiment, from all others."""
        experiment = self._store.client.get_experiment(experiment_id)
        return f"{experiment.experiment_id}@{experiment.creation_time}"

    def _is_known(self) -> bool:
        """Whether the store is the one whose identity was noted."""
        known = self._outbox.noted("identity")
        return known is not None and _unless_missing(self._identity, known.partition("@")[0]) == known

    def _elsewhere(self, what: str) -> NotThisStore:
        here, wanted = redact(self._store.uri), self._outbox.noted("store")
        if here == wanted or self._is_known():
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
        before, run_id, here = self._outbox.noted("store"), self._outbox.run_id, redact(self._store.uri)
        identity = self._identity(self._store.experiment_id(self._first()["experiment"]))
        self._recorder, self._delivered, self._marked = None, -1, -1
        self._outbox.begin_anew(store=here, identity=identity)
        told = f"made anew in {here}"
        if run_id is not None:
            told += f"; what {before or 'the store before'} has of it stays there as run {run_id}"
        if not RUN_ID.fullmatch(self._outbox.directory.name):  # see `SpooledRecorder.to`
            told += ", and only there is what it had recorded before it was resumed"
        return told

    def _write(self, run: Recorder, record: Record) -> None:
        if record.kind == "run":
            return
        if method := METHODS.get(record.kind):
            method(run, **record.values)
            return
        payload = self._outbox.payload(record.number)
        if not payload.is_dir():
            raise Refused(f"the files of write {record.number} are gone from {self._outbox.directory}")
        if record.kind == "files":
            run.log_directory(payload)
            return
        try:
            model_files.about(payload)
        except Exception as error:  # whatever is wrong with the file, each parser raises its own
            raise Refused(
                f"the files of write {record.number} in {self._outbox.directory} are damaged ({error})"
            ) from None
        run.log_saved_model(payload, **record.values, key=f"{self._outbox.directory.name}-{record.number}")


def _unless_missing(call: Callable[[str], Any], identifier: str) -> Any:
    """The store's answer; None if it is that there is no such thing."""
    try:
        return call(identifier)
    except TrackingError as error:
        if _code(error) == MISSING:
            return None
        raise


def _code(error: TrackingError) -> object:
    """MLflow's name for what it has answered."""
    return getattr(error.__cause__, "error_code", None)


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
