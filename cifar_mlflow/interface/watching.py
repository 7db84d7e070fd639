"""The listener of a caller from Python: warnings are Python's own, progress is a bar, a callback hears of epochs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import cifar_mlflow
from cifar_mlflow.jobs.listener import Listener, SweepListener, TrainingListener

if TYPE_CHECKING:
    from cifar_mlflow.config.sweep import SweepConfig
    from cifar_mlflow.config.training import TrainingConfig
    from cifar_mlflow.learning.training import EpochResult
    from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder

WARNING = "warning: "
PACKAGE = str(Path(cifar_mlflow.__file__).parent)


class Watching(Listener):
    """What `progress` shows goes to standard error or into the notebook; `callback` is given each `EpochResult`."""

    def __init__(self, progress: bool | None, callback: Callable[[EpochResult], object] | None = None) -> None:
        """With None for `progress`, bars are shown on a terminal and in a notebook, nowhere else."""
        self._shown = is_interactive() if progress is None else progress
        self._callback = callback

    def note(self, text: str) -> None:
        if text.startswith(WARNING):
            warnings.warn(text.removeprefix(WARNING), stacklevel=_callers_level())
        elif self._shown:
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)

    @contextmanager
    def bar(self, total: int, description: str, unit: str) -> Iterator[Callable[[int], object]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # in a notebook without ipywidgets the bar is text, as anywhere else
            from tqdm.auto import tqdm

        with tqdm(total=total, desc=description, unit=unit, disable=not self._shown, leave=False) as shown:
            yield shown.update

    @contextmanager
    def training(self, config: TrainingConfig, images_per_epoch: int, images_done: int) -> Iterator[TrainingListener]:
        with self.bar(config.epochs * images_per_epoch, "training", " images") as update:
            update(images_done)
            yield _TrainingWatched(update, self._callback)

    def sweep(self, spec: SweepConfig, runs: int, epochs: int) -> AbstractContextManager[SweepListener]:
        if not self._shown:
            return nullcontext(SweepListener())
        from contextlib import closing

        from cifar_mlflow.jobs.sweeping.progress import SweepProgress

        return closing(SweepProgress(spec, runs, epochs))


class _TrainingWatched(TrainingListener):
    def __init__(self, update: Callable[[int], object], callback: Callable[[EpochResult], object] | None) -> None:
        self._update, self._callback = update, callback

    def recording(self, run: SpooledRecorder) -> None:
        pass

    def step(self, images: int, steps: int) -> None:
        self._update(images)

    def epoch(self, result: EpochResult) -> None:
        if self._callback is not None:
            self._callback(result)


def is_interactive() -> bool:
    """Whether a person watches: standard error is a terminal, or this is a notebook."""
    shell = sys.modules.get("IPython")
    in_notebook = shell is not None and "IPKernelApp" in getattr(shell.get_ipython(), "config", ())
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())


def _callers_level() -> int:
    """The level, for `warnings.warn` in the function that asks, of the first caller outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(
        (PACKAGE, contextmanager.__code__.co_filename)
    ):
        level, frame = level + 1, frame.f_back
    return level
