"""A lock file that one process holds, and that others may look at without getting in its way."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

TRIES = 50  # at a lock that somebody only looks at, which takes less than a millisecond
PAUSE = 0.01  # seconds between them


def take(path: Path) -> BaseFileLock | None:
    """The lock, held by this process until it is released, by any of its threads; None if another holder has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    for _ in range(TRIES):
        try:
            lock.acquire(timeout=0)
            return lock
        except Timeout:
            if is_locked(path):
                return None
            time.sleep(PAUSE)
    return None


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file.

    A shared lock tells: several who look do not see each other, and `take` waits until they have looked.
    """
    if not path.exists():
        return False
    try:
        import fcntl
    except ImportError:  # on Windows only taking the lock tells
        from filelock import FileLock, Timeout

        try:
            with FileLock(path).acquire(timeout=0):
                return False
        except Timeout:
            return True
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)
