"""The checkpoints of a run while this process trains it: when, what, where, and how to go on from the last."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_mlflow import directories
from cifar_mlflow.errors import Diverged, ModelError, TrackingError
from cifar_mlflow.jobs.listener import say
from cifar_mlflow.text import count

if TYPE_CHECKING:
    from cifar_mlflow.jobs.training.record import TrainingRecord
    from cifar_mlflow.learning.checkpoint_files import Checkpoints
    from cifar_mlflow.learning.training import Training

# At least, between two checkpoints within an epoch, and from one to the next that follows an epoch.
MINUTES, SECONDS = 10.0, 30.0
PART = "checkpoints"


class RunCheckpoints:
    """The checkpoints of one run, in the state directory.

    With `kept` false there are none: for a training that is repeated from its beginning if it breaks off.
    """

    def __init__(self, *, kept: bool = True) -> None:
        """Raises ConfigurationError if the state directory cannot be written."""
        self._kept, self._parent = kept, directories.writable(PART) if kept else Path()
        self._run_id = self._reached = ""
        self._lock: Any = None
        self._files: Checkpoints | None = None
        self._saved: Mapping[str, Any] | None = None
        self._attached: tuple[Training, TrainingRecord] | None = None

    def close(self) -> None:
        """Gives the run free."""
        if self._lock is not None:
            if not self.directory.exists():  # nothing is left of the run for which it could be locked
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def open(self, run_id: str) -> None:
        """Takes the run for this process alone, if that is not done already.

        Raises:
            TrackingError: another process of this machine has it.
        """
        if self._lock is not None or not self._kept:
            return
        from filelock import FileLock, Timeout

        from cifar_mlflow.learning.checkpoint_files import Checkpoints

        lock = FileLock(self._parent / f"{run_id}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise TrackingError(f"the run {run_id} is being trained by another process here; wait for it") from None
        self._lock, self._run_id = lock, run_id
        self._files = Checkpoints(self.directory)
        self._last_time = time.monotonic()

    def has(self, run_id: str) -> bool:
        """Whether there are checkpoints of that run."""
        return bool(run_id) and (self._parent / run_id).is_dir()

    @property
    def directory(self) -> Path:
        """Where the checkpoints of the opened run are, if there are any."""
        return self._parent / self._run_id

    @property
    def images_done(self) -> int:
        """How many images the training that is taken up had been trained on."""
        return self._saved["training"]["images_done"] if self._saved else 0

    def read(self) -> tuple[Mapping[str, Any] | None, list[str]]:
        """The last checkpoint's content, None if there is none, and what is wrong with newer ones.

        Raises:
            ModelError: there are some, and none is whole.
        """
        assert self._files is not None
        self._saved, faults = self._files.read()
        if self._saved:
            self._reached = position(self._saved)
        return self._saved, faults

    def attach(self, session: Training, record: TrainingRecord) -> None:
        """Takes both, which are new, to where the last checkpoint was read; from now on they are what is saved.

        Raises:
            ModelError: the checkpoint is of another network, which only one of the user's own can have become.
        """
        saved, self._saved = self._saved, None  # a second copy of all weights
        if saved:
            try:
                session.restore(saved["training"])
            except (RuntimeError, ValueError) as error:  # torch's, of weights and of an optimizer that do not fit
                told = f"{self.directory} does not fit the network that {session.config.network} is here"
                raise ModelError(f"the checkpoint in {told} ({' '.join(str(error).split())[:300]})") from None
        self._attached = session, record
        if saved:
            record.restore(saved["results"], saved["best"])

    def save_if_due(self) -> None:
        """As `save`, if the last one is old."""
        if self._files and time.monotonic() - self._last_time >= 60 * MINUTES:
            self.save()

    def save_after_epoch(self) -> None:
        """As `save` after the first epoch and the last; between, if the last one is old enough to be worth it."""
        if self._files is None or self._attached is None:
            return
        session, record = self._attached
        is_last = record.results[-1].epoch == session.config.epochs or session.stopping.reason
        if is_last or self._files.last is None or time.monotonic() - self._last_time >= SECONDS:
            self.save()

    def save(self) -> None:
        """Writes a checkpoint; to be called between two steps or two epochs.

        Raises:
            TrainingError: it cannot be written; the one before is intact.
        """
        if self._files is None:
            return
        assert self._attached is not None
        session, record = self._attached
        content = {
            "run_id": self._run_id,
            "config": session.config.model_dump(mode="json"),
            "dataset_digest": record.dataset.digest,
            "training": session.state(),
            "results": [asdict(result) for result in record.results],
            "best": record.best_weights,
        }
        self._files.write(content)
        self._last_time = time.monotonic()
        self._reached = position(content)

    def give_up(self, error: BaseException) -> None:
        """The training broke off: says how to go on. What diverged would do so again, so nothing of it is kept."""
        if isinstance(error, Diverged):
            self.discard()
        elif self._files and self._attached:
            last = self._files.last
            say(f"saved     {self._reached} in {last}" if last else "saved     nothing yet; it will begin with epoch 1")
            say(f"resume    cifar-mlflow train --resume {self._run_id}")

    def discard(self) -> None:
        """Removes all checkpoints of the run."""
        if self._files:
            self._files.remove()


def position(saved: Mapping[str, Any]) -> str:
    """How far a checkpoint is: epoch 3 of 30, or epoch 3 of 30 and 400 steps of the next."""
    training = saved["training"]
    steps = training.get("in_progress", {}).get("steps")
    reached = f"epoch {training['epochs']} of {saved['config']['epochs']}"
    return f"{reached} and {count(steps, 'step')} of the next" if steps else reached
