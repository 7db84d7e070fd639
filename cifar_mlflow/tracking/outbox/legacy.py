"""The outbox format before this one, which is still delivered; nothing is written in it.

    records.log   one record a line: its CRC-32, and what is to be written as JSON
    delivered     how many records have arrived
    run_id        the run's id in the store, once there is one

The files of its records are where they are today.
"""

import itertools
import json
import re
import sqlite3
import zlib
from pathlib import Path
from typing import Any

from cifar_mlflow.tracking.outbox import database

LOG = "records.log"
RUN_ID = re.compile(r"[0-9a-f]{32}")


def is_old(directory: Path) -> bool:
    return (directory / LOG).exists()


def convert(tables: sqlite3.Connection, directory: Path) -> None:
    """Takes the records over, keeps what is behind a damaged one beside the outbox, and removes the old files."""
    with tables:
        tables.execute("BEGIN IMMEDIATE")
        # They are filled if a process was killed before it removed the old files.
        if not tables.execute(database.FIRST).fetchone() and (damaged := fill(tables, directory)):
            directory.with_name(f"{directory.name}.damaged").write_bytes(damaged)
    for name in (LOG, "delivered", "run_id"):
        (directory / name).unlink(missing_ok=True)


def fill(tables: sqlite3.Connection, directory: Path) -> bytes:
    """Fills new tables with the records up to the first damaged one; returns what is behind it."""
    log = directory / LOG
    lines, at = log.read_bytes().splitlines(keepends=True), int(1000 * log.stat().st_mtime)
    records: list[Any] = list(itertools.takewhile(bool, map(_parse, lines)))
    delivered = _noted(directory, "delivered").strip()
    arrived = int(delivered) if delivered.isdecimal() else 0
    for number, (kind, values) in enumerate(records):
        text, written = json.dumps(values), values.get("timestamp", at)
        tables.execute(database.INSERT, (number, written, kind, text, database.checksum(text), number < arrived))
    # A run that the store had made gave the outbox its name; one that began offline has a time of its own.
    named = directory.name if records and "timestamp" not in records[0][1] else ""
    if records and (run_id := next(filter(RUN_ID.fullmatch, (_noted(directory, "run_id"), named)), None)):
        tables.execute(database.NOTE, ("run_id", run_id))
    damaged = b"".join(lines[len(records) :])
    if b"\n" not in damaged:  # a torn last line was promised to no one
        damaged = b""
    tables.execute(database.NOTE, ("damaged", str(damaged.count(b"\n"))))
    return damaged


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


def _noted(directory: Path, name: str) -> str:
    try:
        return (directory / name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
