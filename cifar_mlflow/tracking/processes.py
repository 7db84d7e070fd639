"""Which process writes a run, and whether it is still there."""

import os
import socket
from collections.abc import Mapping

from cifar_mlflow.errors import TrackingError

CLOCK_TOLERANCE = 2.0  # seconds by which two readings of one process's start may differ
CLOSE_COMMAND = "python -c \"import mlflow; mlflow.MlflowClient().set_terminated('{}', 'KILLED')\""  # {}: the run id


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


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the run was written on this machine, by a process that no longer exists."""
    return not is_elsewhere(tags) and not is_alive(tags)


def describe(tags: Mapping[str, str]) -> str:
    """process NUMBER on HOST."""
    return f"process {tags.get('process_id')} on {tags.get('host')}"


def refuse_if_busy(what: str, run_id: str, tags: Mapping[str, str], then: str) -> None:
    """TrackingError if the process of the RUNNING run `what` is, or may be, at work; `then` is what to do after."""
    if is_elsewhere(tags):
        raise TrackingError(
            f"{what} is RUNNING by {describe(tags)}. If that process is gone, say so with\n"
            f"  {CLOSE_COMMAND.format(run_id)}\nand {then}"
        )
    if is_alive(tags):
        raise TrackingError(f"{what} is being trained by {describe(tags)}; wait for it, or stop it")
