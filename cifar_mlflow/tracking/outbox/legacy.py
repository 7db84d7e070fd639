"""The outbox format before this one, which is still delivered; nothing is written in it.

    records.log   one record a line: its CRC-32, and what is to be written as JSON
    delivered     how many records have arrived
    run_id        the run's id in the store, once there is one

The files of its records are where they are today.
"""

import json
import re
import sqlite3
import zlib
from pathlib import Path

from cifar_mlflow.tracking.outbox import database

LOG = "records.log"
RUN_ID = re.compile(r"[0-9a-f]{32}")


def is_old(directory: Path) -> bool:
    return (directory / LOG).exists()


def fill(tables: sqlite3.Connection, directory: Path) -> bytes:
    """Fills new tables with the records up to the first damaged one, in one transaction; returns what is behind it."""
    content, at = (directory / LOG).read_bytes(), int(1000 * (directory / LOG).stat().st_mtime)
    delivered, rows, whole = _delivered(directory), [], 0
    for number, line in enumerate(content.splitlines(keepends=True)):
        if (record := _parse(line)) is None:
            break
        whole += len(line)
        kind, values = record
        noted, text = values.get("timestamp"), json.dumps(values)
        written = noted if isinstance(noted, int) and 0 < noted < 2**62 else at
        rows.append((number, written, kind, text, database.checksum(text), int(number < delivered)))
        if number == 0 and (run_id := _run_id(directory, values)):
            tables.execute(database.NOTE, ("run_id", run_id))
    damaged = content[whole:]
    if b"\n" not in damaged:  # a torn last line was promised to no one
        damaged = b""
    tables.execute(database.NOTE, ("damaged", str(damaged.count(b"\n"))))
    tables.executemany(database.INSERT, rows)
    return damaged


def remove(directory: Path) -> None:
    """Removes the files of the old format, and leaves those of its records."""
    for name in (LOG, "delivered", "run_id"):
        (directory / name).unlink(missing_ok=True)


def _parse(line: bytes) -> tuple[str, dict[str, object]] | None:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text):
            return None
        values = json.loads(text)
        kind: str = values.pop("kind")
        kind.encode()
        return kind, values
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _delivered(directory: Path) -> int:
    try:
        return int((directory / "delivered").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


def _run_id(directory: Path, first: dict[str, object]) -> str | None:
    try:
        noted = (directory / "run_id").read_text(encoding="utf-8")
    except (OSError, ValueError):
        noted = ""
    # A run that the store had made gave the outbox its name; one that began offline has a time of its own.
    candidates = (noted, "" if "timestamp" in first else directory.name)
    return next((each for each in candidates if RUN_ID.fullmatch(each)), None)
