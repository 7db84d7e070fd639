"""What a person watches: a bar on a terminal, plain lines elsewhere. All of it goes to standard error."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

from cifar_mlflow.text import count, redact

if TYPE_CHECKING:
    from cifar_mlflow.learning.training import EpochResult
    from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder

SECONDS_BETWEEN_LOOKS = 1.0  # at how much has not reached the store


class TrainingProgress:
    """A bar over all images of all epochs, and a line an epoch. `images_done` is where a resumed training begins."""

    def __init__(self, epochs: int, images_per_epoch: int, held_out: str, images_done: int = 0) -> None:
        self._epochs, self._images, self._held_out = epochs, images_per_epoch, held_out
        self._started = self._looked = time.monotonic()
        self._images_done = images_done
        self._run: SpooledRecorder | None = None
        self._bar = tqdm(
            total=epochs * images_per_epoch,
            initial=images_done,
            unit=" images",
            unit_scale=True,
            desc=f"epoch {min(images_done // images_per_epoch + 1, epochs)}/{epochs}",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            leave=False,
        )

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def recording(self, run: SpooledRecorder) -> None:
        """What is trained is written to this run, of which the bar shows how much has not arrived."""
        self._run = run

    def step(self, images: int, steps: int) -> None:
        self._bar.update(images)
        now = time.monotonic()
        if now - self._looked > SECONDS_BETWEEN_LOOKS:
            self._looked = now
            self._bar.set_postfix_str(self._waiting(), refresh=False)

    def _waiting(self) -> str:
        """tracking: 12 writes waiting; nothing as long as the store can be reached."""
        if self._run is None or not self._run.trouble:
            return ""
        return f"tracking: {count(self._run.waiting, 'write')} waiting"

    def epoch(self, result: EpochResult) -> None:
        seconds_per_image = (time.monotonic() - self._started) / (result.epoch * self._images - self._images_done)
        left = (self._epochs - result.epoch) * self._images * seconds_per_image
        ending = f", {duration(left)} left" if result.epoch < self._epochs else ""
        ending += f", {waiting}" if (waiting := self._waiting()) else ""
        scored = not math.isnan(result.held_out_accuracy)
        accuracy = f"{self._held_out} accuracy {result.held_out_accuracy:6.2f}%  " if scored else ""
        say(
            f"epoch {result.epoch:>{len(str(self._epochs))}}/{self._epochs}  "
            f"{accuracy}training {result.train_accuracy:6.2f}%  "
            f"{result.images_per_second:,.0f} images/s{ending}"
        )
        self._bar.set_description(f"epoch {min(result.epoch + 1, self._epochs)}/{self._epochs}")


@contextmanager
def bar(total: int, description: str, unit: str) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal, nothing elsewhere; yields the function that moves it on."""
    with tqdm(total=total, desc=description, unit=unit, disable=not sys.stderr.isatty(), leave=False) as shown:
        yield shown.update


def say(text: str) -> None:
    """A line on standard error that leaves a bar intact."""
    tqdm.write(redact(text), file=sys.stderr)
    sys.stderr.flush()


def result(text: str) -> None:
    """Part of the result, to standard output at once; a bar on the same terminal stays intact."""
    tqdm.write(text, file=sys.stdout, end="")
    sys.stdout.flush()


def warn(text: str) -> None:
    say(f"warning: {text}")


def duration(seconds: float) -> str:
    """1 h 05 min, 12 min, 40 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
