"""How often Python looks for garbage: rarely, for what torch and MLflow make when they are imported stays."""

from __future__ import annotations

import atexit
import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two looks; with Python's own 700, a fifth of the time of an import goes into looking through it.
THRESHOLD = 100_000


def collect_rarely() -> None:
    """For this process, and not at its end, where the interpreter would look through everything for a second more."""
    gc.set_threshold(THRESHOLD)
    atexit.register(gc.freeze)


@functools.cache  # once: what later runs of a process leave behind must not stay
def set_apart_what_is_loaded() -> None:
    """Looks at what there is now for the last time, so that no training waits a tenth of a second for that."""
    gc.collect()  # garbage would stay for ever
    gc.freeze()


@contextmanager
def without_collection() -> Iterator[None]:
    """For a moment in which many objects are made and none becomes garbage, as on an import or for a page of runs.

    To look through them for garbage, again and again, takes a third of the time of such a moment.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
