"""The SQLite database of an outbox: its tables, and how it is opened."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "outbox.sqlite"
TIMEOUT = 20.0  # seconds for which a database is waited for that another process, which looks at it, has locked
# A write-ahead log would need shared memory, which the network file systems of clusters do not have.
SETTINGS = "PRAGMA synchronous = FULL; PRAGMA journal_mode = TRUNCATE;"
# A record's state is 0 if it waits, 1 if it has arrived, 2 if the store refuses it, for `reason`.
SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY, written INTEGER NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL,
    checksum INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0, reason TEXT
);
CREATE INDEX IF NOT EXISTS records_by_state ON records (state);
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
COMMIT;
"""
INSERT = "INSERT INTO records (number, written, kind, content, checksum, state) VALUES (?, ?, ?, ?, ?, ?)"
FIRST = "SELECT number, kind, content, checksum FROM records ORDER BY number LIMIT 1"
NEXT = "SELECT number, kind, content, checksum FROM records WHERE state = 0 AND number > ? ORDER BY number LIMIT 1"
REFUSALS = "SELECT kind || ': ' || reason FROM records WHERE state = 2 ORDER BY number"
NOTE = "INSERT OR REPLACE INTO about VALUES (?, ?)"


def connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    """The database; with `mode` rw it must exist. Each statement is a transaction, unless one is begun."""
    where = f"{path.absolute().as_uri()}?mode={mode}"
    opened = sqlite3.connect(where, timeout=TIMEOUT, isolation_level=None, check_same_thread=False, uri=True)
    opened.executescript(SETTINGS)
    return opened


@contextmanager
def as_os_error() -> Iterator[None]:
    """What SQLite raises, a full disk or a damaged file, as the OSError that it is to who writes files."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def checksum(text: str) -> int:
    return zlib.crc32(text.encode())
