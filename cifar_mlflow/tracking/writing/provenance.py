"""Where a run came from: the code's commit and the versions it ran with."""

import functools
import getpass
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cifar_mlflow
from cifar_mlflow.tracking.processes import process_tags

PACKAGE = Path(cifar_mlflow.__file__).parent


def tags() -> dict[str, str]:
    """Tags that tell which code ran, with which packages, by whom and where."""
    commit, dirty = commit_and_state()
    found = {
        "mlflow.source.name": "cifar_mlflow",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
        "git_commit": commit or "unknown: the package was not run from a git checkout",
        "version_cifar_mlflow": cifar_mlflow.__version__,
        "version_python": platform.python_version(),
        **process_tags(),
    }
    if commit:
        found |= {"git_dirty": str(dirty).lower(), "mlflow.source.git.commit": commit}
    for package in ("torch", "torchvision", "mlflow", "numpy"):
        try:
            found[f"version_{package}"] = version(package)
        except PackageNotFoundError:
            found[f"version_{package}"] = "unknown"
    return found


def commit_and_state() -> tuple[str | None, bool]:
    """The commit of the checkout that this package is part of (None if it was installed), and whether files differ."""
    return _commit_and_state(PACKAGE)


def describe_commit() -> str:
    """The commit, and whether there are changes besides; or unknown."""
    commit, dirty = commit_and_state()
    return f"{commit}{' with changes' if dirty else ''}" if commit else "unknown"


@functools.cache  # the code that this process runs does not change any more, whatever becomes of the checkout
def _commit_and_state(package: Path) -> tuple[str | None, bool]:
    try:
        # Fails if the package was installed: a checkout around a virtual environment says nothing of it.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "rev-parse", "HEAD"), bool(_git(package, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, False


def _git(package: Path, *arguments: str) -> str:
    return subprocess.check_output(
        ["git", "-C", package, *arguments], stderr=subprocess.DEVNULL, text=True, timeout=10
    ).strip()


def user() -> str:
    """The name of whoever runs this, or the number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user need not have a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
