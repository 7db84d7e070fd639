"""When a training ends before its last epoch: it no longer gets better, or its time is up."""

import math
import time
from collections.abc import Mapping
from typing import Any

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.text import count


class Stopping:
    """Whether a training shall end after an epoch. `reason` says why it has; it is empty while it goes on."""

    def __init__(self, config: TrainingConfig, last_epoch: int | None = None) -> None:
        """With `last_epoch`, that one is the last in place of the one in which --max-minutes have passed."""
        self._config, self._last_epoch = config, last_epoch
        self._began = time.monotonic()
        self._best, self._best_epoch = -math.inf, 0
        self.reason = ""

    def is_last(self, epoch: int) -> bool:
        """Whether the epoch, which was trained and is to be scored, is the last, whatever its score.

        To be asked once an epoch.
        """
        minutes = self._config.max_minutes
        if epoch == self._config.epochs:
            return True
        if minutes != "none" and (
            time.monotonic() - self._began >= 60 * minutes if self._last_epoch is None else epoch >= self._last_epoch
        ):
            self.reason = f"--max-minutes {minutes:g} have passed"
        return bool(self.reason)

    def after(self, epoch: int, accuracy: float) -> None:
        """Takes note of the epoch's validation accuracy."""
        if accuracy > self._best:
            self._best, self._best_epoch = accuracy, epoch
        patience = self._config.patience
        if patience != "none" and patience <= epoch - self._best_epoch and epoch < self._config.epochs:
            self.reason = f"for {count(patience, 'epoch')} (--patience) none was better than epoch {self._best_epoch}"

    def state(self) -> dict[str, Any]:
        return {
            "seconds": time.monotonic() - self._began,
            "best": self._best,
            "best_epoch": self._best_epoch,
            "reason": self.reason,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to where `state` was taken: the time that was trained before counts."""
        self._began = time.monotonic() - state["seconds"]
        self._best, self._best_epoch, self.reason = state["best"], state["best_epoch"], state["reason"]
