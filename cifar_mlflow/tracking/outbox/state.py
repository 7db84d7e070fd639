"""The outboxes of this machine as they lie there: looked at without opening one, which would change it."""

import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cifar_mlflow.tracking.outbox import database, legacy, locks, log


@dataclass(frozen=True)
class Look:
    """An outbox as it lies there. `name` and `tags` are the run's first ones, `store` is where it is or is to be.

    `since` (seconds of time.time()) is when the first of the `waiting` writes was made; those whose refusals are in
    `refused` are among them. `ended`: how the run has ended is written. `damaged` counts records that cannot be read,
    and `fault` says why none can be.
    """

    directory: Path
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None
    store: str | None = None
    waiting: int = 0
    refused: tuple[str, ...] = ()
    since: float = 0.0
    damaged: int = 0
    empty: bool = False
    ended: bool = False
    fault: str | None = None

    @property
    def busy(self) -> bool:
        """Whether a living process uses it."""
        return is_busy(self.directory)


def look(directory: Path) -> Look:
    """Looks at an outbox of either format."""
    try:
        with database.as_os_error():
            return _look(directory)
    except (OSError, ValueError, TypeError) as error:
        return Look(directory, directory.name, fault=getattr(error, "strerror", None) or str(error))


def _look(directory: Path) -> Look:
    old = legacy.is_old(directory)
    with closing(sqlite3.connect(":memory:") if old else database.connect(directory / database.NAME, "rw")) as tables:
        if old:
            tables.executescript(database.SCHEMA)
            legacy.fill(tables, directory)
        elif not tables.execute("SELECT 1 FROM sqlite_master").fetchone():
            return Look(directory, directory.name, empty=True)
        row = tables.execute(database.FIRST).fetchone()
        about = dict(tables.execute("SELECT name, value FROM about"))
        waiting, since = tables.execute("SELECT count(*), min(written) FROM records WHERE state <> 1").fetchone()
        ended = tables.execute("SELECT 1 FROM records WHERE kind = 'finish'").fetchone() is not None
        refused = tuple(reason for (reason,) in tables.execute(database.REFUSALS))
    first, damaged = row and log.parse(*row), int(about.get("damaged", 0))
    values = first.values if first else {}
    return Look(
        directory,
        str(values.get("name", directory.name)),
        values.get("tags", {}),
        about.get("run_id"),
        about.get("store"),
        waiting,
        refused,
        min((since or 0) / 1000, time.time()),
        damaged,
        empty=not row and not damaged,
        ended=ended,
    )


def is_busy(directory: Path) -> bool:
    """Whether a living process writes the outbox or delivers from it."""
    return locks.is_locked(directory / "lock")


def size_of(path: Path) -> int:
    """The bytes that a file, or all files of a directory, take."""
    size = 0
    for each in [path, *path.rglob("*")]:
        with suppress(OSError):  # it may go in this moment
            size += each.stat().st_size if each.is_file() else 0
    return size


def remains(directory: Path) -> list[Path]:
    """What in `directory` is no outbox, or one without a record: what a process left that was killed as it began."""
    return sorted(path for path in directory.glob("*/") if not log.is_outbox(path) or look(path).empty)
