"""Which process writes a run, and whether it is still there.

A process is known by the boot of its machine (else the machine), the namespace that numbers it, its number, and the
clock ticks after the boot at which it started: none of them changes with the host's name or the clock. Where a system
tells none of that, and in runs of earlier versions, the host's name and the time of the start have to do.
"""

import functools
import hashlib
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

from cifar_mlflow.errors import TrackingError

CLOCK_TOLERANCE = 2.0  # seconds by which two readings of one process's start may differ
CLOSE_COMMAND = "python -c \"import mlflow; mlflow.MlflowClient().set_terminated('{}', 'KILLED')\""  # {}: the run id
UNKNOWN = "unknown"
INITIAL_NAMESPACE = "pid:[4026531836]"  # of the machine itself, not of a container (Linux's PROC_PID_INIT_INO)


def process_tags() -> dict[str, str]:
    """Tags by which a later process can tell whether this one is still at work on the run."""
    import psutil

    number = os.getpid()
    return {
        "host": socket.gethostname(),
        "process_id": str(number),
        "process_started": f"{psutil.Process().create_time():.2f}",
        "process_ticks": (_status(number) or (UNKNOWN,) * 2)[1],
        **_place(),
    }


@functools.cache
def _place() -> dict[str, str]:
    """What tells the processes of this machine, and of this container, from those of all others."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = UNKNOWN
    return {
        "boot_id": _content("/proc/sys/kernel/random/boot_id") or UNKNOWN,
        "machine_id": _machine_id(),
        "pid_namespace": namespace,
    }


def _machine_id() -> str:
    """A digest, as machine-id(5) asks for: the number itself is nobody else's concern."""
    known = _content("/etc/machine-id") or _content("/var/lib/dbus/machine-id")
    if not known:
        address = uuid.getnode()
        known = socket.gethostname() if address >> 40 & 1 else str(address)  # that bit: no network card, so drawn
    return hashlib.sha256(f"cifar-mlflow {known}".encode()).hexdigest()[:32]


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _status(number: int) -> tuple[str, str] | None:
    """The state of the process and the clock ticks from the boot to its start, see proc(5); None if nothing tells."""
    # The name of the program comes before them, in parentheses, and may contain anything.
    fields = _content(f"/proc/{number}/stat").rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else None


def is_elsewhere(tags: Mapping[str, str]) -> bool:
    """Whether the run was written on another machine or in another container, of whose processes nothing is known."""
    if "boot_id" not in tags:
        return tags.get("host") != socket.gethostname()
    here = _place()
    of_machine = "machine_id" if here["boot_id"] == UNKNOWN else "boot_id"
    same = all(tags.get(name) == here[name] for name in ("boot_id", of_machine, "pid_namespace"))
    return not same and not _is_of_an_earlier_boot(tags)


def _is_of_an_earlier_boot(tags: Mapping[str, str]) -> bool:
    """Whether the process ran on this machine before it was started anew; containers may share a machine's id."""
    here = _place()
    if UNKNOWN in (here["boot_id"], tags["boot_id"]) or tags["boot_id"] == here["boot_id"]:
        return False
    if tags.get("machine_id") != here["machine_id"]:
        return False
    import psutil

    # A machine that was copied with its id has processes younger than this boot.
    earlier = float(tags.get("process_started", "inf")) < psutil.boot_time()
    return earlier and tags.get("pid_namespace") == here["pid_namespace"] == INITIAL_NAMESPACE


def is_alive(tags: Mapping[str, str]) -> bool:
    """Whether the process that wrote the run, on this machine, still exists."""
    import psutil

    if "boot_id" in tags and tags["boot_id"] != _place()["boot_id"]:
        return False
    try:
        number, ticks = int(tags["process_id"]), tags.get("process_ticks", UNKNOWN)
        # The number alone could by now belong to another process.
        if ticks != UNKNOWN:
            if status := _status(number):
                return status[0] not in "ZX" and status[1] == ticks
            os.kill(number, 0)  # sends nothing; it fails if there is no such process
            return True
        process = psutil.Process(number)
        same = abs(process.create_time() - float(tags["process_started"])) <= CLOCK_TOLERANCE
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except PermissionError:  # another user's, whose /proc may be hidden (hidepid): its number is all that is told
        return True
    except (psutil.NoSuchProcess, ProcessLookupError, KeyError, ValueError):
        return False


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the run was written on this machine, by a process that no longer exists."""
    return not is_elsewhere(tags) and not is_alive(tags)


def describe(tags: Mapping[str, str]) -> str:
    """process NUMBER on HOST."""
    told = f"process {tags.get('process_id')} on {tags.get('host')}"
    other = is_elsewhere(tags) and tags.get("host") == socket.gethostname()
    return f"{told} (a container or another machine of that name)" if other else told


def refuse_if_busy(what: str, run_id: str, tags: Mapping[str, str], then: str) -> None:
    """TrackingError if the process of the RUNNING run `what` is, or may be, at work; `then` is what to do after."""
    if is_elsewhere(tags):
        raise TrackingError(
            f"{what} is RUNNING by {describe(tags)}. If that process is gone, say so with\n"
            f"  {CLOSE_COMMAND.format(run_id)}\nand {then}"
        )
    if is_alive(tags):
        raise TrackingError(f"{what} is being trained by {describe(tags)}; wait for it, or stop it")
