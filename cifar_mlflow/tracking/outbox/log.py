"""A run's outbox on disk: what is written to the tracking store is written here first, and stays until it arrived.

A spool is a directory in the state directory, named by the run:

    records.log   one record a line: its CRC-32, and what is to be written as JSON; only ever appended to
    delivered     how many records have arrived, replaced as a whole
    run_id        the run's id in the store, once there is one
    payload/N/    the files that record N is about
    lock          held by the process that writes the spool or delivers from it

What of a log could not be read is kept beside the spool, as NAME.damaged.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_mlflow.errors import TrackingError

# What each kind of record must hold; a line that holds anything else was not written here.
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
RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Record:
    """One write: `kind` names a method of the delivery, `values` are its arguments. `number` counts from 0."""

    number: int
    kind: str
    values: dict[str, Any]


class Spool:
    """One run's outbox. One thread appends, another may read and mark what was delivered."""

    def __init__(self, directory: Path) -> None:
        """Opens the spool in `directory`, which is made if it is new; `damaged` is how many records were unreadable.

        Raises:
            TrackingError: it is in use by another process, or cannot be written.
        """
        from filelock import FileLock, Timeout

        self.directory = directory
        try:
            (directory / "payload").mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(directory / "lock")
            self._lock.acquire(timeout=0)
            records, whole = read_log(self._log)
            self._set_aside(whole)
        except Timeout:
            raise TrackingError(f"{directory} is in use by another process, which is writing that run") from None
        except OSError as error:
            raise TrackingError(f"{directory} cannot be written ({error.strerror}); set $CIFAR_MLFLOW_STATE") from None
        self._written = len(records)
        self.delivered = min(delivered_in(self.directory), self._written)

    @property
    def _log(self) -> Path:
        return self.directory / "records.log"

    def _set_aside(self, whole: int) -> None:
        """Cuts off what cannot be read; more than a torn last line, which was promised to no one, is kept beside."""
        content = self._log.read_bytes() if self._log.exists() else b""
        self.damaged = content[whole:].count(b"\n")
        if self.damaged:
            damaged_beside(self.directory).write_bytes(content[whole:])
        with self._log.open("ab") as log:
            log.truncate(whole)

    @property
    def waiting(self) -> int:
        """The number of writes that have not arrived yet."""
        return self._written - self.delivered

    @property
    def run_id(self) -> str | None:
        """The run's id in the store, if it is there already."""
        return run_id_of(self.directory)

    def keep_run_id(self, run_id: str) -> None:
        _replace(self.directory / "run_id", run_id)

    def payload(self, number: int) -> Path:
        """The directory for the files of record `number`."""
        return self.directory / "payload" / str(number)

    def next_payload(self) -> Path:
        """The directory for the files of the record that is appended next; empty."""
        path = self.payload(self._written)
        shutil.rmtree(path, ignore_errors=True)  # of a record that was never completed
        path.mkdir(parents=True)
        return path

    def append(self, kind: str, **values: Any) -> None:
        """Adds a record; when this returns, it is on the disk.

        Raises:
            OSError: the disk is full or gone; the records before it are as they were.
        """
        text = json.dumps({"kind": kind, **values}).encode()
        before = self._log.stat().st_size
        with self._log.open("ab") as log:
            try:
                log.write(b"%08x %s\n" % (zlib.crc32(text), text))
                log.flush()
                os.fsync(log.fileno())
            except OSError:
                log.truncate(before)
                raise
        self._written += 1

    def pending(self) -> list[Record]:
        """The records that have not been delivered, in order."""
        records, _ = read_log(self._log)
        return records[self.delivered :]

    def mark_delivered(self, number: int) -> None:
        """Record `number`, and all before it, have arrived; its files are removed."""
        _replace(self.directory / "delivered", str(number + 1))
        self.delivered = number + 1
        shutil.rmtree(self.payload(number), ignore_errors=True)

    def close(self) -> None:
        """Gives the spool free; one from which everything was delivered is removed."""
        if not self.waiting:
            shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.release()


def spools(directory: Path) -> list[Path]:
    """The spools in `directory`, the oldest first."""
    return sorted((path.parent for path in directory.glob("*/records.log")), key=lambda path: (_age(path), path.name))


def damaged_beside(directory: Path) -> Path:
    """Where that part of a spool's log is kept that cannot be read."""
    return directory.with_name(f"{directory.name}.damaged")


def first_record(directory: Path) -> Mapping[str, Any]:
    """What the spool's first record says, without opening it; empty if there is none."""
    records, _ = read_log(directory / "records.log")
    return records[0].values if records else {}


def _age(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:  # its process has just delivered it
        return 0.0


def run_id_of(directory: Path) -> str | None:
    """The run id that the spool in `directory` notes; None if it has none, or no valid one."""
    try:
        text = (directory / "run_id").read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if RUN_ID.fullmatch(text) else None


def read_log(log: Path) -> tuple[list[Record], int]:
    """The records up to the first damaged one, and the number of bytes that they take."""
    try:
        content = log.read_bytes()
    except FileNotFoundError:
        return [], 0
    records: list[Record] = []
    whole = 0
    for line in content.splitlines(keepends=True):
        record = _parse(line, len(records))
        if record is None:
            break
        records.append(record)
        whole += len(line)
    return records, whole


def _parse(line: bytes, number: int) -> Record | None:
    """The record in a line of the log; None if the line is torn or damaged."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text):
            return None
        values = json.loads(text)
        kind = values.pop("kind")
        wanted = CONTENTS[kind]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not all(isinstance(values.get(name), kinds) for name, kinds in wanted.items()):
        return None
    return Record(number, kind, values)


def delivered_in(directory: Path) -> int:
    """How many of its records the spool in `directory` notes as delivered."""
    try:
        return max(0, int((directory / "delivered").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return 0


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
