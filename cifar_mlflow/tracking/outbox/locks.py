"""A lock file that one process holds, and that others may look at without getting in its way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOOK = 1.0  # seconds, of which one who only looks takes less than a thousandth


def take(path: Path) -> BaseFileLock | None:
    """The lock, held by this process until any of its threads releases it; None if another holder has it."""
    return None if is_locked(path) else _take(path, LOOK)


def _take(path: Path, seconds: float) -> BaseFileLock | None:
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=seconds, poll_interval=0.01)
    except Timeout:
        return None
    return lock


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file.

    A shared lock tells: several who look do not see each other, and `take` waits until they have looked.
    """
    if not path.exists():
        return False
    try:
        import fcntl
    except ImportError:  # on Windows only taking the lock tells
        lock = _take(path, 0)
        if lock is not None:
            lock.release()
        return lock is None
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
