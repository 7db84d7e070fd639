"""What a job changes in the process that calls it, and puts back when it ends."""

import functools
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
SET_BY_TORCH = "TORCHINDUCTOR_CACHE_DIR"  # when it exports or loads a model

_lock = threading.RLock()
_jobs = 0
_changes = ExitStack()


@contextmanager
def preserved() -> Iterator[None]:
    """Around a job, or as its decorator: what was changed by the functions below is undone at the end.

    Where jobs run at the same time, in each other or in threads, that is the end of the last.
    """
    global _jobs
    with _lock:
        _jobs += 1
        if SET_BY_TORCH not in os.environ:
            _changes.callback(os.environ.pop, SET_BY_TORCH, None)
    try:
        yield
    finally:
        with _lock:
            _jobs -= 1
            if not _jobs:
                _changes.close()


def at_end(undo: Callable[[], object]) -> None:
    """Has `undo` called at the end of the job; never outside of a job, where the process is ours and a change stays."""
    with _lock:
        if _jobs:
            _changes.callback(undo)


def set_variable(name: str, value: str) -> None:
    """Sets a variable of the environment, for this process and those that it starts."""
    before = os.environ.get(name)
    os.environ[name] = value
    at_end(lambda: os.environ.pop(name, None) if before is None else os.environ.update({name: before}))


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Around a download by others' functions that have no timeout of their own: so long may a server be silent."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def set_level(name: str, level: int) -> None:
    """Has the logger, and those below it, tell nothing under `level`."""
    logger = logging.getLogger(name)
    at_end(functools.partial(logger.setLevel, logger.level))
    logger.setLevel(level)
