"""Which process writes a run, and whether it is still there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

CLOCK_TOLERANCE = 2.0  # seconds by which two readings of one process's start may differ


def process_tags() -> dict[str, str]:
    """Tags by which a later process can tell whether this one is still at work on the run."""
    import psutil

    started = psutil.Process().create_time()
    return {"host": socket.gethostname(), "process_id": str(os.getpid()), "process_started": f"{started:.2f}"}


def is_elsewhere(tags: Mapping[str, str]) -> bool:
    """Whether the run was written on another machine, of whose processes nothing can be known here."""
    return tags.get("host") != socket.gethostname()


def is_alive(tags: Mapping[str, str]) -> bool:
    """Whether the process that wrote the run, on this machine, still exists."""
    import psutil

    try:
        process = psutil.Process(int(tags["process_id"]))
        # The number alone could by now belong to another process.
        same = abs(process.create_time() - float(tags["process_started"])) <= CLOCK_TOLERANCE
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False
