"""What a worker on another machine has in common with the driver: told by both, and compared before the first task."""

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cifar_mlflow

CLOCK_TOLERANCE = 5.0  # seconds; the store orders runs by the times that their machines tell


@dataclass(frozen=True)
class Facts:
    """Of one process: versions, and a digest of the source of this package."""

    python: str
    torch: str
    package: str
    source: str


def facts() -> Facts:
    """Of this process; torch is not imported."""
    try:
        torch = importlib.metadata.version("torch").partition("+")[0]  # that it is for GPUs is the device's concern
    except importlib.metadata.PackageNotFoundError:
        torch = "none"
    return Facts(platform.python_version(), torch, cifar_mlflow.__version__, _source())


def _source() -> str:
    """16 hex digits, of every file of the package that is Python or compiled."""
    root, total = Path(cifar_mlflow.__file__).parent, hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.so")]):
        content = path.read_bytes()
        total.update(f"{path.relative_to(root).as_posix()}\n{len(content)}\n".encode() + content)
    return total.hexdigest()[:16]


def faults(here: Facts, there: Facts) -> Iterator[str]:
    """In what a worker differs from the driver: each in words, with what to do."""
    if there.python != here.python:
        yield f"Python {there.python} instead of {here.python}; install the same"
    if there.torch != here.torch:
        yield f"torch {there.torch} instead of {here.torch}; install the same"
    if there.package != here.package:
        yield f"cifar-mlflow {there.package} instead of {here.package}; take the other one out of the worker's path"
    elif there.source != here.source:
        yield f"another source of cifar-mlflow {here.package} ({there.source}, not {here.source}); remove it there"


def clock_fault(there: float, asked: float, answered: float | None = None) -> str | None:
    """What is wrong with a clock that told the time `there` after `asked` and before `answered` (default: now)."""
    late = there - (time.time() if answered is None else answered)
    off = late if late > 0 else there - asked if there < asked else 0.0
    if abs(off) <= CLOCK_TOLERANCE:
        return None
    return f"its clock is {abs(off):.0f} seconds {'ahead' if off > 0 else 'behind'}; set it (NTP)"
