"""What tests of the outbox share: records, an outbox of the old format, and a process that does something."""

from __future__ import annotations

import json
import multiprocessing
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

RUN = {"experiment": "e", "name": "n", "tags": {"kind": "single"}, "timestamp": 1_790_000_000_000}
# Forked from a server that has imported what the tests need, so that a process begins in an instant.
PROCESSES = multiprocessing.get_context("forkserver")


def line(kind: str, **values: Any) -> bytes:
    """A line of the old format's log."""
    text = json.dumps({"kind": kind, **values}).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def write_old(directory: Path, lines: list[bytes], delivered: bytes | None = None, run_id: bytes | None = None) -> None:
    """An outbox of the old format, byte for byte."""
    (directory / "payload").mkdir(parents=True)
    (directory / "records.log").write_bytes(b"".join(lines))
    for name, content in (("delivered", delivered), ("run_id", run_id)):
        if content is not None:
            (directory / name).write_bytes(content)


def in_a_process(function: Callable[..., None], *arguments: Any) -> Any:
    """Starts a process that calls the function, which stands at the top of a module."""
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    return process
