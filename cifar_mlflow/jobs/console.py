"""The command line's listener: lines and bars on the terminal."""

from __future__ import annotations

import atexit
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING

from cifar_mlflow.jobs.listener import Listener, SweepListener, TrainingListener
from cifar_mlflow.text import redact

if TYPE_CHECKING:
    from cifar_mlflow.config.sweep import SweepConfig
    from cifar_mlflow.config.training import TrainingConfig

# New objects between two looks for garbage. With Python's own 700, a fifth of the time of an import goes into them.
GC_THRESHOLD = 100_000


class Console(Listener):
    """Shows lines, and bars if it is a terminal, on standard error."""

    def note(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(redact(text), file=sys.stderr)  # leaves a bar intact
        sys.stderr.flush()

    @contextmanager
    def bar(self, total: int, description: str, unit: str) -> Iterator[Callable[[int], object]]:
        from tqdm import tqdm

        with tqdm(total=total, desc=description, unit=unit, disable=not sys.stderr.isatty(), leave=False) as shown:
            yield shown.update

    def training(
        self, config: TrainingConfig, images_per_epoch: int, images_done: int
    ) -> AbstractContextManager[TrainingListener]:
        from cifar_mlflow.jobs.training.progress import TrainingProgress

        return closing(TrainingProgress(config, images_per_epoch, images_done))

    def sweep(self, spec: SweepConfig, runs: int, epochs: int) -> AbstractContextManager[SweepListener]:
        from cifar_mlflow.jobs.sweeping.progress import SweepProgress

        return closing(SweepProgress(spec, runs, epochs))


class OwnProcess(Console):
    """The console of a process that is ours alone, and is tuned: the command line's, or that of a sweep's worker."""

    def __init__(self) -> None:
        gc.set_threshold(GC_THRESHOLD)
        atexit.register(_end)

    def computing(self) -> None:
        _settle()


def _end() -> None:
    """Spares the interpreter its last look through everything, which takes a second.

    From 3.9 on, triton, which torch imports, fills the terminal with what was not freed by then: it is looked through.
    """
    from packaging.version import Version

    triton = str(getattr(sys.modules.get("triton"), "__version__", "0"))
    (gc.freeze if Version(triton) < Version("3.9") else gc.unfreeze)()


@functools.cache  # once: what later runs of a process leave behind must not stay
def _settle() -> None:
    """Looks for garbage for the last time among what is there now, so that no training waits a tenth of a second."""
    from cifar_mlflow.learning import hardware

    gc.collect()  # garbage would stay for ever
    gc.freeze()
    hardware.keep_freed_memory()
