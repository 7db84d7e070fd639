"""Who hears what a job does on its way: nobody, unless the caller names a listener.

    with listening(Console()):
        train(config)

Jobs return their results and print nothing. What they tell meanwhile goes through `say`, `warn`, `bar` and
`current_listener`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_mlflow.config.sweep import SweepConfig
    from cifar_mlflow.config.training import TrainingConfig
    from cifar_mlflow.learning.training import EpochResult
    from cifar_mlflow.records import TrialOutcome
    from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder


class TrainingListener:
    """Hears how far a training is. What it raises ends the training."""

    def recording(self, run: SpooledRecorder) -> None:
        """The training is recorded in `run`."""

    def step(self, images: int, steps: int) -> None:
        """One of the epoch's `steps` was done, with so many images. This must not take long."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch has ended, and is recorded."""


class SweepListener:
    """Hears how far a sweep is."""

    def known(self, values: Mapping[str, Any], value: float | None, images: int = 0) -> None:
        """A run of the configuration `values` was done before, with `value` as its objective, on so many images."""

    def epoch(self) -> None:
        """One of the workers has ended an epoch."""

    def run(self, values: Mapping[str, Any], what: str, outcome: TrialOutcome) -> None:
        """A run, which `what` names, has ended."""


class Listener:
    """Hears what a job does, and shows nothing of it; a subclass overrides what it shows."""

    def note(self, text: str) -> None:
        """A line for a person who waits; a warning begins with "warning: "."""

    def bar(self, total: int, description: str, unit: str) -> AbstractContextManager[Callable[[int], object]]:
        """Something that takes a while has begun; the function in the context is called with each part of `total`."""
        return nullcontext(lambda count: None)

    def training(
        self, config: TrainingConfig, images_per_epoch: int, images_done: int
    ) -> AbstractContextManager[TrainingListener]:
        """A training begins, or goes on after `images_done`."""
        return nullcontext(TrainingListener())

    def sweep(self, spec: SweepConfig, runs: int, epochs: int) -> AbstractContextManager[SweepListener]:
        """A sweep begins, with `runs` to train of about `epochs` each."""
        return nullcontext(SweepListener())

    def computing(self) -> None:
        """Everything is imported, and training steps follow."""


NOBODY = Listener()
_listener: ContextVar[Listener] = ContextVar("listener", default=NOBODY)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Has `listener` hear of the jobs that are called within the block, in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listen(listener: Listener) -> None:
    """Has `listener` hear of all jobs of this thread from now on."""
    _listener.set(listener)


def current_listener() -> Listener:
    """Whoever is listening."""
    return _listener.get()


def say(text: str) -> None:
    current_listener().note(text)


def warn(text: str) -> None:
    current_listener().note(f"warning: {text}")


def bar(total: int, description: str, unit: str) -> AbstractContextManager[Callable[[int], object]]:
    return current_listener().bar(total, description, unit)
