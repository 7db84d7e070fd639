"""What the functions of the interface have in common: a store, a listener, a process that is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_mlflow import process_state
from cifar_mlflow.interface.watching import Watching
from cifar_mlflow.jobs.listener import listening
from cifar_mlflow.memory import enough_memory

if TYPE_CHECKING:
    from cifar_mlflow.learning.training import EpochResult


@contextmanager
def called(
    tracking_uri: str | Path | None, progress: bool | None, callback: Callable[[EpochResult], object] | None = None
) -> Iterator[None]:
    """The store and the listener of one call."""
    with process_state.preserved(), listening(Watching(progress, callback)), enough_memory():
        if tracking_uri is not None:
            process_state.set_variable("MLFLOW_TRACKING_URI", str(tracking_uri))
        yield
