"""What a person watches during a training: a bar on a terminal, and a line an epoch."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.jobs.listener import TrainingListener, say
from cifar_mlflow.jobs.training.results import held_out_name
from cifar_mlflow.text import count, duration

if TYPE_CHECKING:
    from cifar_mlflow.learning.training import EpochResult
    from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder

SECONDS_BETWEEN_LOOKS = 1.0  # at how much has not reached the store


class TrainingProgress(TrainingListener):
    """A bar over all images of all epochs, and a line an epoch. `images_done` is where a resumed training begins."""

    def __init__(self, config: TrainingConfig, images_per_epoch: int, images_done: int = 0) -> None:
        self._epochs, self._images, self._held_out = config.epochs, images_per_epoch, held_out_name(config)
        self._started = self._looked = time.monotonic()
        self._images_done = images_done
        self._run: SpooledRecorder | None = None
        self._bar = tqdm(
            total=self._epochs * images_per_epoch,
            initial=images_done,
            unit=" images",
            unit_scale=True,
            desc=self._position(images_done // images_per_epoch),
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            leave=False,
        )

    def close(self) -> None:
        self._bar.close()

    def recording(self, run: SpooledRecorder) -> None:
        """The bar shows how much has not arrived."""
        self._run, self._started = run, time.monotonic()

    def step(self, images: int, steps: int) -> None:
        self._bar.update(images)
        now = time.monotonic()
        if now - self._looked > SECONDS_BETWEEN_LOOKS:
            self._looked = now
            self._bar.set_postfix_str(self._waiting(), refresh=False)

    def epoch(self, result: EpochResult) -> None:
        seconds_per_image = (time.monotonic() - self._started) / (result.epoch * self._images - self._images_done)
        left = (self._epochs - result.epoch) * self._images * seconds_per_image
        line = f"epoch {result.epoch:>{len(str(self._epochs))}}/{self._epochs}  "
        if not math.isnan(result.held_out_accuracy):
            line += f"{self._held_out} accuracy {result.held_out_accuracy:6.2f}%  "
        line += f"training {result.train_accuracy:6.2f}%  {result.images_per_second:,.0f} images/s"
        line += f", {duration(left)} left" if result.epoch < self._epochs else ""
        line += f", {waiting}" if (waiting := self._waiting()) else ""
        say(line)
        self._bar.set_description(self._position(result.epoch))

    def _position(self, passed: int) -> str:
        return f"epoch {min(passed + 1, self._epochs)}/{self._epochs}"

    def _waiting(self) -> str:
        """tracking: 12 writes waiting; nothing as long as the store can be reached."""
        if self._run is None or not self._run.trouble:
            return ""
        return f"tracking: {count(self._run.waiting, 'write')} waiting"
