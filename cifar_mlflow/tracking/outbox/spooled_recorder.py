"""A run that is recorded on disk first: the recorder of a training, for which no tracking store is worth waiting."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.text import redact
from cifar_mlflow.tracking.outbox.delivery import RUN_TAG
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.outbox.worker import DeliveryWorker
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import model_files
from cifar_mlflow.tracking.writing.model_files import ExportedModel
from cifar_mlflow.tracking.writing.recorder import Recorder, write_files

PATIENCE = 15.0  # seconds without any progress after which a run ends with writes waiting


class SpooledRecorder:
    """As `Recorder`, but each write goes to the run's outbox, and from there to the store in the background.

    Every method raises TrackingError if the outbox cannot be written, or the store has refused an earlier write for
    good. `run_id` is the outbox's name for a run that began offline.
    """

    def __init__(self, outbox: Outbox, run_id: str, experiment_id: str, run_name: str, url: str | None) -> None:
        self._outbox = outbox
        self._worker: DeliveryWorker | None = None
        self._direct: Recorder | None = None
        self.run_id, self.experiment_id, self.run_name, self.url = run_id, experiment_id, run_name, url

    @classmethod
    def start(
        cls, store: Store, experiment: str, run_name: str, tags: Mapping[str, str], *, may_wait: bool = False
    ) -> SpooledRecorder:
        """A new run, made in the store at once (see `Recorder.start`); only with `may_wait` as soon as it answers."""
        # By this key the run is found if the store has made it, but the answer was lost.
        key = uuid.uuid4().hex
        try:
            run = Recorder.start(store, experiment, run_name, {**tags, RUN_TAG: key})
        except TrackingError:
            if not may_wait:
                raise
            recorder = cls._unmade(key, experiment, run_name, tags, store)
            recorder._worker = DeliveryWorker(store, recorder._outbox)
            return recorder
        return cls.to(store, run, run.run_id, experiment, tags)

    @classmethod
    def to(cls, store: Store, run: Recorder, name: str, experiment: str, tags: Mapping[str, str]) -> SpooledRecorder:
        """Writes to a run of the store, through a new outbox; if there can be none, the run is FAILED.

        `name` is the outbox's: the run's id, or for a run that is taken up again one that no earlier outbox of it had,
        since the store knows models by it.
        """
        try:
            outbox = Outbox(spool_directory() / name, new=True)
            recorder = cls(outbox, run.run_id, run.experiment_id, run.run_name, run.url)
            recorder._begin(experiment, tags, run_id=run.run_id, store=redact(store.uri))
            recorder._direct = run
        except BaseException:
            run.finish("FAILED")
            raise
        recorder._worker = DeliveryWorker(store, outbox)
        return recorder

    @classmethod
    def start_offline(cls, experiment: str, run_name: str, tags: Mapping[str, str]) -> SpooledRecorder:
        """A run that no store knows yet; `sync` takes it to one."""
        return cls._unmade(uuid.uuid4().hex, experiment, run_name, tags)

    @classmethod
    def _unmade(
        cls, key: str, experiment: str, run_name: str, tags: Mapping[str, str], store: Store | None = None
    ) -> SpooledRecorder:
        recorder = cls(Outbox(spool_directory() / key, new=True), key, "", run_name, None)
        recorder._begin(experiment, tags, **({"store": redact(store.uri)} if store else {}))
        return recorder

    def _begin(self, experiment: str, tags: Mapping[str, str], **about: str) -> None:
        with self._errors():
            for name, value in about.items():
                self._outbox.note(name, value)
        self._write("run", experiment=experiment, name=self.run_name, tags=dict(tags), timestamp=_now())

    @property
    def waiting(self) -> int:
        """The number of writes that have not reached the store."""
        with self._errors():
            return self._outbox.waiting

    @property
    def directory(self) -> Path:
        """Where they are kept."""
        return self._outbox.directory

    @property
    def trouble(self) -> str | None:
        """Why the store cannot be reached at the moment; None if it can, or if none is asked for."""
        return self._worker.trouble if self._worker else None

    def log_parameters(self, parameters: Mapping[str, str]) -> None:
        self._log("parameters", parameters=dict(parameters))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self._log("metrics", metrics=dict(metrics), step=step, timestamp=_now())

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, int], context: str) -> None:
        self._log("dataset", name=name, digest=digest, source=source, profile=dict(profile), context=context)

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Artifacts of the run, by path."""
        with self._errors():
            write_files(self._outbox.next_payload(), files)
        self._log("files")

    def log_model(self, exported: ExportedModel, metrics: Mapping[str, float]) -> None:
        """The model, and the metrics that tell its worth."""
        with self._errors():
            model_files.save(exported, self._outbox.next_payload())
        self._log("model", metrics=dict(metrics), timestamp=_now())

    def log_same_models(self, models: Sequence[tuple[ExportedModel, Mapping[str, float]]]) -> None:
        """As `log_model` for each. All have the same weights: the first is exported, which takes long, and copied."""
        with self._errors(), tempfile.TemporaryDirectory() as directory:
            saved = Path(directory) / "model"
            model_files.save(models[0][0], saved)
            for exported, metrics in models:
                model_files.save_copy(saved, exported, self._outbox.next_payload())
                self._log("model", metrics=dict(metrics), timestamp=_now())

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._write("tags", tags=dict(tags))

    def finish(self, status: str) -> None:
        """Ends the run: FINISHED, FAILED or KILLED. If that cannot be written, the store is told at once."""
        try:
            self._write("finish", status=status, timestamp=_now())
        except TrackingError:
            if self._direct is not None:
                with suppress(TrackingError):
                    self._direct.finish("FAILED" if status == "FINISHED" else status)
            raise

    def close(self, patience: float = PATIENCE) -> int:
        """Waits until all has arrived, or nothing for `patience` seconds; returns how many writes have not arrived.

        Who has the usual patience waits as long as the user lets a request take.
        """
        if self._worker is None:
            return self._outbox.close()
        if patience >= PATIENCE:
            patience = max(patience, float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or 0))
        with self._errors():
            return self._worker.close(patience)

    def _log(self, kind: str, **values: Any) -> None:
        # How a run ends is written even if the store has refused something: so not in `_write`.
        if self._worker is not None and self._worker.refusal:
            refusal, self._worker.refusal = self._worker.refusal, None
            raise TrackingError(refusal)
        self._write(kind, **values)

    def _write(self, kind: str, **values: Any) -> None:
        with self._errors():
            self._outbox.append(kind, **values)
        if self._worker is not None:
            self._worker.wake()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrackingError(
                f"{self._outbox.directory} cannot be written ({error.strerror or error}): make room there, or set "
                "$CIFAR_MLFLOW_STATE to a directory with more"
            ) from error


def _now() -> int:
    return int(time.time() * 1000)
