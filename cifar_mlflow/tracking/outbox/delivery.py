"""Taking a spool's records to the tracking store: in order, and as often as it takes with the effect of once.

Metric points carry their timestamps, so MLflow keeps each only once; parameters are written only where they are
missing; tags and files are overwritten by themselves. Runs and models, of which each call would make another, carry
an id of ours, by which one that was made already is found again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox.log import Record, Spool
from cifar_mlflow.tracking.store import Store, translated_errors
from cifar_mlflow.tracking.writing import model_files
from cifar_mlflow.tracking.writing.recorder import Recorder

RUN_TAG = "mlflow.cifar_mlflow.key"  # of a run: drawn before it is made, and the name of its spool if that was first
# What MLflow answers to a request that would fail in the same way whenever it is sent.
FINAL = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_STATE",
    "BAD_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
}


class Refused(TrackingError):
    """The store will never take this record."""


class Delivery:
    """Delivers one spool to one store."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store, self._spool = store, spool
        self._recorder: Recorder | None = None

    def deliver(self, record: Record) -> None:
        """Takes one record to the store.

        Raises:
            Refused: the store will never take it.
            TrackingError: the store cannot be reached; try again later.
        """
        try:
            if record.kind == "run":
                self._make_run(record.values)
            else:
                getattr(self, f"_{record.kind}")(self._run(), record)
        except TrackingError as error:
            if getattr(error.__cause__, "error_code", None) in FINAL:
                raise Refused(str(error)) from error.__cause__
            raise

    def _run(self) -> Recorder:
        if self._recorder is None:
            run_id = self._spool.run_id
            if run_id is None:
                raise Refused("its run was never made: the spool does not begin with one")
            with translated_errors(self._store.uri):
                info = self._store.client.get_run(run_id).info
            self._recorder = Recorder(self._store, run_id, info.experiment_id, info.run_name)
        return self._recorder

    def _make_run(self, values: dict[str, Any]) -> None:
        """The run of a spool that began offline; one that was made before the last try was broken off is taken."""
        if self._spool.run_id is not None:
            return
        if "timestamp" not in values:  # the store made the run, which gave the spool its name
            self._spool.keep_run_id(self._spool.directory.name)
            return
        experiment_id = self._store.experiment_id(values["experiment"])
        name = self._spool.directory.name
        with translated_errors(self._store.uri):
            made = self._store.client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
            run = (
                made[0]
                if made
                else self._store.client.create_run(
                    experiment_id, values["timestamp"], {**values["tags"], RUN_TAG: name}, values["name"]
                )
            )
        self._spool.keep_run_id(run.info.run_id)

    def _parameters(self, run: Recorder, record: Record) -> None:
        run.log_parameters(record.values["parameters"])

    def _metrics(self, run: Recorder, record: Record) -> None:
        values = record.values
        run.log_metrics(values["metrics"], step=values["step"], timestamp=values["timestamp"])

    def _tags(self, run: Recorder, record: Record) -> None:
        run.set_tags(record.values["tags"])

    def _dataset(self, run: Recorder, record: Record) -> None:
        run.log_dataset(**record.values)

    def _files(self, run: Recorder, record: Record) -> None:
        run.log_directory(self._payload(record))

    def _model(self, run: Recorder, record: Record) -> None:
        key = f"{self._spool.directory.name}-{record.number}"
        payload = self._payload(record)
        try:
            model_files.about(payload)
        except Exception as error:  # whatever is wrong with the file, each parser raises its own
            raise Refused(
                f"the files of write {record.number} in {self._spool.directory} are damaged ({error})"
            ) from None
        run.log_saved_model(payload, record.values["metrics"], record.values["timestamp"], key)

    def _finish(self, run: Recorder, record: Record) -> None:
        run.finish(record.values["status"], record.values["timestamp"])

    def _payload(self, record: Record) -> Path:
        path = self._spool.payload(record.number)
        if not path.is_dir():
            raise Refused(f"the files of write {record.number} are gone from {self._spool.directory}")
        return path


def deliver_all(store: Store, spool: Spool) -> list[str]:
    """Delivers what is pending; returns what the store has refused for good, which is left out.

    Raises:
        TrackingError: the store cannot be reached; what was delivered so far is marked.
    """
    delivery, refused = Delivery(store, spool), []
    for record in spool.pending():
        try:
            delivery.deliver(record)
        except Refused as error:
            refused.append(f"{record.kind}: {error}")
        spool.mark_delivered(record.number)
    return refused
