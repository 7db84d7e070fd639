"""The spools of this machine as they lie there: looked at without opening one, which would change it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cifar_mlflow.tracking.outbox import log as spool


@dataclass(frozen=True)
class Look:
    """A spool as it lies there. `since` (seconds of time.time()) is when the first of the `waiting` writes was made.

    `busy` spools are in use by a living process; `damaged` counts records that cannot be read.
    """

    directory: Path
    name: str
    run_id: str | None
    waiting: int
    damaged: int
    size: int
    since: float
    busy: bool


def look(directory: Path) -> Look:
    """Looks at a spool without changing it.

    Raises:
        OSError: it is gone, or may not be read.
    """
    log = directory / "records.log"
    records, whole = spool.read_log(log)
    waiting = records[spool.delivered_in(directory) :]
    times = [record.values["timestamp"] / 1000 for record in waiting if "timestamp" in record.values]
    return Look(
        directory,
        str(records[0].values.get("name", directory.name)) if records else directory.name,
        spool.run_id_of(directory),
        len(waiting),
        log.read_bytes()[whole:].count(b"\n"),
        size_of(directory),
        min(times, default=log.stat().st_mtime),
        is_busy(directory),
    )


def is_busy(directory: Path) -> bool:
    """Whether a living process writes the spool or delivers from it."""
    return is_locked(directory / "lock")


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file."""
    from filelock import FileLock, Timeout

    if not path.exists():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def size_of(path: Path) -> int:
    """The bytes that a file, or all files of a directory, take."""
    size = 0
    for each in [path, *path.rglob("*")]:
        with suppress(OSError):  # it may go in this moment
            size += each.stat().st_size if each.is_file() else 0
    return size


def abandoned(directory: Path) -> list[Path]:
    """Those spools that no living process has, the oldest first."""
    return [path for path in spool.spools(directory) if not is_busy(path)]


def remains(directory: Path) -> list[Path]:
    """What in `directory` is no spool, or one without a line: what a process left that was killed as it began."""
    return sorted(path for path in directory.glob("*/") if not _has_a_line(path / "records.log"))


def _has_a_line(log: Path) -> bool:
    try:
        return b"\n" in log.read_bytes()
    except FileNotFoundError:
        return False
