"""A run that is recorded on disk first: the recorder of a training, for which no tracking store is worth waiting."""

import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cifar_mlflow.directories import STATE_VARIABLE, no_room, spool_directory
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.text import redact
from cifar_mlflow.tracking.outbox.delivery import RUN_TAG
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.outbox.worker import DeliveryWorker
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import model_files
from cifar_mlflow.tracking.writing.model_files import ExportedModel
from cifar_mlflow.tracking.writing.recorder import Recorder, write_files

FILES_OF_A_MODEL = (
    3  # with its weights in them that are on the disk at once: what was exported, and a copy for each use
)
ROOM_BESIDE_WEIGHTS = 1_000_000  # bytes, for a model's graph, its example and MLflow's files
DRAIN_TIMEOUT = 15.0  # seconds for which a run that has ended waits for a store that takes nothing


@dataclass(frozen=True)
class Recorded:
    """What a run has in the store: the steps of each metric, its complete models by their weights, its dataset.

    Of MLflow's system metrics, whose steps are no epochs, it is only how many there are.
    """

    steps: Mapping[str, frozenset[int]] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    dataset: bool = False
    samples: int = 0


class SpooledRecorder:
    """As `Recorder`, but each write goes to the run's outbox, and from there to the store in the background.

    Every method raises TrackingError if the outbox cannot be written, or the store has refused an earlier write for
    good. `run_id` is the outbox's name for a run that began offline. What is `recorded` already is left out, so that
    no metric gets a second value at a step, and no model a double. `parameters` are as in `Recorder`.
    """

    recorded = Recorded()

    def __init__(
        self,
        name: str,
        experiment: str,
        run_name: str,
        tags: Mapping[str, str],
        store: Store | None = None,
        run: Recorder | None = None,
    ) -> None:
        """Makes the outbox `name`; without a `store` all stays in it, and without a `run` none was made there yet."""
        self.directory = spool_directory() / name
        self._outbox, self._direct = Outbox(self.directory, new=True), run
        self._worker: DeliveryWorker | None = None
        self.run_id, self.experiment_id = (run.run_id, run.experiment_id) if run else (name, "")
        self.run_name, self.experiment, self.url = run_name, experiment, run.url if run else None
        self.parameters: Mapping[str, str] = run.parameters if run else {}
        with self._errors():
            if run:
                self._outbox.note("run_id", run.run_id)
            if store:
                self._outbox.note("store", redact(store.uri))
        self._write("run", experiment=experiment, name=run_name, tags=dict(tags), timestamp=_now())
        if store:
            self._worker = DeliveryWorker(store, self._outbox)

    @classmethod
    def start(
        cls, store: Store | None, experiment: str, run_name: str, tags: Mapping[str, str], *, may_wait: bool = False
    ) -> Self:
        """A new run, made in the store at once (see `Recorder.start`); only with `may_wait` as soon as it answers.

        Without a store, `sync` takes it to one.
        """
        # By this key the run is found if the store has made it, but the answer was lost.
        key = uuid.uuid4().hex
        if store is None:
            return cls(key, experiment, run_name, tags)
        try:
            run = Recorder.start(store, experiment, run_name, {**tags, RUN_TAG: key})
        except TrackingError:
            if not may_wait:
                raise
            return cls(key, experiment, run_name, tags, store)
        return cls.to(store, run, run.run_id, experiment, tags)

    @classmethod
    def to(cls, store: Store, run: Recorder, name: str, experiment: str, tags: Mapping[str, str]) -> Self:
        """Writes to a run of the store, through a new outbox; if there can be none, the run is FAILED.

        `name` is the outbox's: the run's id, or for a run that is taken up again one that no earlier outbox of it had,
        since the store knows models by it.
        """
        try:
            return cls(name, experiment, run.run_name, tags, store, run)
        except BaseException:
            run.finish("FAILED")
            raise

    @property
    def waiting(self) -> int:
        """The number of writes that have not reached the store."""
        with self._errors():
            return self._outbox.waiting

    @property
    def trouble(self) -> str | None:
        """Why the store cannot be reached at the moment; None if it can, or if none is asked for."""
        return self._worker.trouble if self._worker else None

    def log_parameters(self, parameters: Mapping[str, str]) -> None:
        self._log("parameters", parameters=dict(parameters))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, timestamp: int | None = None) -> None:
        if lacking := self._lacking(metrics, step):
            self._log("metrics", metrics=lacking, step=step, timestamp=_now() if timestamp is None else timestamp)

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, int], context: str) -> None:
        if not self.recorded.dataset:
            self._log("dataset", name=name, digest=digest, source=source, profile=dict(profile), context=context)

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Artifacts of the run, by path."""
        with self._errors():
            write_files(self._outbox.next_payload(), files)
        self._log("files")

    def log_models(self, models: Sequence[tuple[ExportedModel, Mapping[str, float]]]) -> None:
        """The models, and the metrics that tell their worth.

        Those of the same epoch have the same weights: the first is exported, which takes long, and copied.
        """
        with self._errors(), tempfile.TemporaryDirectory(dir=self.directory) as directory:
            for exported, metrics in models:
                if exported.weights in self.recorded.models:
                    self.log_metrics(metrics)
                    continue
                saved = Path(directory) / str(exported.epoch)
                if not saved.exists():
                    self._need_room_for(exported)
                    model_files.save(exported, saved)
                model_files.save_copy(saved, exported, self._outbox.next_payload())
                self._log("model", metrics=self._lacking(metrics), timestamp=_now())

    def _need_room_for(self, exported: ExportedModel) -> None:
        """OSError if the disk is too full for the model: torch would end the whole process as it writes there."""
        size = sum(weights.numel() * weights.element_size() for weights in exported.module.state_dict().values())
        if shutil.disk_usage(self.directory).free < FILES_OF_A_MODEL * (size + ROOM_BESIDE_WEIGHTS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

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

    def close(self, drain_timeout: float | None = None) -> int:
        """Waits until all has arrived, or nothing for `drain_timeout` seconds; returns how many writes have not.

        The default is `DRAIN_TIMEOUT`, or as long as the user lets a request take if that is longer.
        """
        if self._worker is None:
            return self._outbox.close()
        if drain_timeout is None:
            drain_timeout = max(DRAIN_TIMEOUT, float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or 0))
        with self._errors():
            return self._worker.close(drain_timeout)

    def _lacking(self, metrics: Mapping[str, float], step: int = 0) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if step not in self.recorded.steps.get(name, ())}

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
                no_room(error, {self.directory: STATE_VARIABLE})
                or f"{error.filename or self.directory} cannot be written ({error.strerror or error}): make room "
                f"there, or set ${STATE_VARIABLE} to a directory with more"
            ) from error


def _now() -> int:
    return int(time.time() * 1000)
