"""A run's outbox on disk: what is written to the tracking store is written here first, and stays until all arrived.

An outbox is a directory in the state directory, named by the run:

    outbox.sqlite   the records, each with what became of it, and what is known of the run
    payload/N/      the files that record N is about
    lock            held by the process that writes the outbox or delivers from it

Nothing is removed before all has arrived, so that the whole run can be taken to another store. Each change is one
transaction, which is done or not done, whatever interrupts it; what is counted is counted in the database.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import database, legacy, locks

if TYPE_CHECKING:
    from filelock import BaseFileLock

WINDOWS = os.name == "nt"  # where no directory can be opened, and no file removed whose lock is held
# What each kind of record must hold; one that holds anything else was not written here.
CONTENTS: dict[str, dict[str, type]] = {
    "run": {"experiment": str, "name": str, "tags": dict},
    "parameters": {"parameters": dict},
    "metrics": {"metrics": dict, "step": int, "timestamp": int},
    "tags": {"tags": dict},
    "dataset": {"name": str, "digest": str, "source": str, "profile": dict, "context": str},
    "files": {},
    "model": {"metrics": dict, "timestamp": int},
    "finish": {"status": str, "timestamp": int},
}


class Busy(TrackingError):
    """Another process writes the outbox or delivers from it."""


@dataclass(frozen=True)
class Record:
    """One write, with all that it needs but its files. Later ones have higher numbers."""

    number: int
    kind: str
    values: dict[str, Any]


class Outbox:
    """One run's outbox, which this process has for itself. One thread appends, another may read and mark.

    Every method raises OSError if the disk is full or gone, or the database damaged; nothing is half done then.
    """

    def __init__(self, directory: Path, *, new: bool = False) -> None:
        """Opens the outbox in `directory`; only with `new` one is made. One of the old format is converted.

        Raises:
            Busy: it is in use by another process.
            TrackingError: it is gone, damaged, or cannot be written.
        """
        self.directory, self._left = directory, 0
        # One a thread. A lock of ours around a shared one would stay taken if a signal's exception came at its edge.
        self._connections: dict[int, sqlite3.Connection] = {}
        self._is_open = True
        self._lock: BaseFileLock | None = None
        try:
            self._begin(new)
        except BaseException as error:
            self._give_free()
            if not isinstance(error, OSError):
                raise
            raise TrackingError(
                f"{directory} cannot be read and written ({error.strerror or error}): make room, put it back from a "
                "copy, or set $CIFAR_MLFLOW_STATE to another directory"
            ) from None

    def _begin(self, new: bool) -> None:
        gone = TrackingError(f"{self.directory} is gone: another process has delivered or removed it")
        if not new and not is_outbox(self.directory):
            raise gone
        (self.directory / "payload").mkdir(parents=True, exist_ok=True)
        self._lock = locks.take(self.directory / "lock")
        if self._lock is None:
            raise Busy(f"{self.directory} is in use by another process, which is writing that run")
        if not new and not is_outbox(self.directory):  # it was delivered between the two looks
            self._give_free(remove=True)
            raise gone
        with database.as_os_error():
            self._tables.executescript(database.SCHEMA)
        if legacy.is_old(self.directory):
            with database.as_os_error(), self._tables as tables:
                tables.execute("BEGIN IMMEDIATE")
                # They are filled if a process was killed before it removed the old files.
                filled = tables.execute(database.FIRST).fetchall()
                if not filled and (damaged := legacy.fill(tables, self.directory)):
                    damaged_beside(self.directory).write_bytes(damaged)
            legacy.remove(self.directory)
        if new:
            _sync(self.directory, self.directory.parent)

    @property
    def _tables(self) -> sqlite3.Connection:
        """This thread's connection; used as a context, the transaction that is begun in it is done or undone."""
        if not self._is_open:
            raise OSError(f"{self.directory} was closed")
        thread = threading.get_ident()
        if thread not in self._connections:
            self._connections[thread] = database.connect(self.directory / database.NAME)
        return self._connections[thread]

    def _query(self, statement: str, *values: object) -> list[Any]:
        """One statement, which is a transaction of its own."""
        with database.as_os_error():
            return self._tables.execute(statement, values).fetchall()

    @property
    def waiting(self) -> int:
        """The number of writes that have not arrived, those that were refused included; after `close`, what it left."""
        if not self._is_open:
            return self._left
        return int(self._query("SELECT count(*) FROM records WHERE state IN (0, 2)")[0][0])

    @property
    def pending(self) -> int:
        """The number of writes that are still to be tried."""
        return int(self._query("SELECT count(*) FROM records WHERE state = 0")[0][0])

    @property
    def refused(self) -> list[str]:
        """What the store does not take, and why."""
        return [row[0] for row in self._query(database.REFUSALS)]

    @property
    def run_id(self) -> str | None:
        """The run's id in the store, if it is there already."""
        return self.noted("run_id")

    def noted(self, name: str) -> str | None:
        """What `note` has noted of the run: its `run_id`, and the address and the `identity` of its `store`."""
        found = self._query("SELECT value FROM about WHERE name = ?", name)
        return str(found[0][0]) if found else None

    def note(self, name: str, value: str) -> None:
        self._query(database.NOTE, name, value)

    def payload(self, number: int) -> Path:
        """The directory for the files of record `number`."""
        return self.directory / "payload" / str(number)

    def next_payload(self) -> Path:
        """The directory for the files of the record that is appended next; empty."""
        path = self.payload(self._next_number)
        shutil.rmtree(path, ignore_errors=True)  # of a record that was never completed
        path.mkdir(parents=True)
        return path

    @property
    def _next_number(self) -> int:
        return int(self._query("SELECT coalesce(max(number) + 1, 0) FROM records")[0][0])

    def append(self, kind: str, **values: Any) -> None:
        """Adds a record; when this returns, it is on the disk with its files."""
        number, text = self._next_number, json.dumps(values)
        if (files := self.payload(number)).exists():
            _sync(*files.rglob("*"), files, files.parent)
        self._query(database.INSERT, number, int(time.time() * 1000), kind, text, database.checksum(text), 0)

    def first(self) -> Record | None:
        """The first record, whatever became of it; None if there is none, or it is damaged."""
        rows = self._query(database.FIRST)
        return _parse(*rows[0]) if rows else None

    def next(self, after: int) -> Record | None:
        """The first record after number `after` that is to be tried; those that are damaged are set aside."""
        while rows := self._query(database.NEXT, after):
            if record := _parse(*rows[0]):
                return record
            self.set_aside(rows[0][0], "it is damaged on disk")
        return None

    def mark_delivered(self, number: int) -> None:
        """Record `number` has arrived, and all before it that were not set aside."""
        self._query("UPDATE records SET state = 1, reason = NULL WHERE state = 0 AND number <= ?", number)

    def set_aside(self, number: int, reason: str) -> None:
        """The store refuses record `number`; it is kept, and the others go on."""
        self._query("UPDATE records SET state = 2, reason = ? WHERE number = ?", reason, number)

    def try_again(self) -> None:
        """What was set aside waits again."""
        self._query("UPDATE records SET state = 0 WHERE state = 2")

    def begin_anew(self, **about: str) -> None:
        """All records wait again, for a run that is to be made; `about` is what is then noted of it."""
        with database.as_os_error(), self._tables as tables:
            tables.execute("BEGIN IMMEDIATE")
            tables.execute("UPDATE records SET state = 0, reason = NULL")
            tables.execute("DELETE FROM about")
            tables.executemany(database.NOTE, list(about.items()))

    def close(self) -> int:
        """Gives the outbox free; returns how many writes have not arrived. One from which all have is removed."""
        if self._is_open:
            try:
                self._left = self.waiting
            except OSError:  # it cannot be read, so that nobody knows that all has arrived
                self._left = 1
            self._give_free(remove=not self._left)
        return self._left

    def _give_free(self, *, remove: bool = False) -> None:
        self._is_open = False
        for connection in self._connections.values():
            connection.close()
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()
        if remove and WINDOWS:
            shutil.rmtree(self.directory, ignore_errors=True)


def outboxes(directory: Path) -> list[Path]:
    """The outboxes in `directory`, the oldest first."""
    found = {path.parent for name in (database.NAME, legacy.LOG) for path in directory.glob(f"*/{name}")}
    return sorted(found, key=lambda path: (_age(path), path.name))


def is_outbox(directory: Path) -> bool:
    return (directory / database.NAME).exists() or legacy.is_old(directory)


def damaged_beside(directory: Path) -> Path:
    """Where that part of a log of the old format is kept that cannot be read."""
    return directory.with_name(f"{directory.name}.damaged")


def _age(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:  # its process has just delivered it
        return 0.0


def _sync(*paths: Path) -> None:
    """Waits until the files, and the entries of the directories, are on the disk."""
    for path in paths:
        is_directory = path.is_dir()
        if is_directory and WINDOWS:
            continue
        file = os.open(path, os.O_RDONLY if is_directory else os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _parse(number: int, kind: str, text: str, checksum: int) -> Record | None:
    """The record of a row; None if it is not as it was written here."""
    try:
        values = json.loads(text)
        wanted = CONTENTS[kind]
        if checksum != database.checksum(text) or not all(isinstance(values[name], wanted[name]) for name in wanted):
            return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Record(number, kind, values)
