"""A lock file that one process holds, and that others may look at without getting in its way."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOOKED_AT = 0.5  # seconds for which a lock is tried that somebody may only look at, which takes less than a millisecond


def take(path: Path) -> BaseFileLock | None:
    """The lock, held by this process until it is released, by any of its threads; None if another holder has it."""
    from filelock import FileLock, Timeout

    if not is_locked(path):
        with suppress(Timeout):
            lock = FileLock(path, thread_local=False)
            lock.acquire(timeout=LOOKED_AT, poll_interval=0.01)
            return lock
    return None


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file.

    A shared lock tells: several who look do not see each other, and `take` waits until they have looked.
    """
    if not path.exists():
        return False
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except ImportError:  # on Windows only taking the lock tells
        from filelock import FileLock, Timeout

        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True
    return False
