"""Where a run came from: the code's commit and the versions it ran with."""

import functools
import getpass
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cifar_mlflow
from cifar_mlflow.tracking.processes import process_tags

# What is new beside them, as reports and data, changes nothing of what runs.
NEW_CODE = (":(top)*.py", ":(top)*.c", ":(top)*.h")
PACKAGE = Path(cifar_mlflow.__file__).parent


@dataclass(frozen=True)
class Code:
    """The state of a checkout: its `commit`, and whether files differ from it, new code included; else `why` not."""

    commit: str | None
    dirty: bool = False
    why: str = ""

    def __str__(self) -> str:
        return f"{self.commit}{' with changes' if self.dirty else ''}" if self.commit else f"unknown: {self.why}"

    def tags(self, prefix: str) -> dict[str, str]:
        if self.commit is None:
            return {f"{prefix}git_commit": str(self)}
        return {f"{prefix}git_commit": self.commit, f"{prefix}git_dirty": str(self.dirty).lower()}


def tags(network: Path | None = None) -> dict[str, str]:
    """Tags that tell which code ran, with which packages, by whom and where; `network` is the user's own module."""
    ours = _code_of(PACKAGE / "__init__.py")
    found = {
        "mlflow.source.name": "cifar_mlflow",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
        **ours.tags(""),
        "version_cifar_mlflow": cifar_mlflow.__version__,
        "version_python": platform.python_version(),
        **process_tags(),
    }
    if job := os.environ.get("SLURM_JOB_ID"):
        of_array = os.environ.get("SLURM_ARRAY_JOB_ID")
        found["slurm_job"] = f"{of_array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if of_array else job
    if ours.commit:
        found["mlflow.source.git.commit"] = ours.commit
    if network:
        found |= _code_of(network).tags("network_")
    for package in ("torch", "torchvision", "mlflow", "numpy"):
        try:
            found[f"version_{package}"] = version(package)
        except PackageNotFoundError:
            found[f"version_{package}"] = "unknown"
    return found


def commit_and_state() -> tuple[str | None, bool]:
    """The commit of the checkout that this package is part of (None if none is known), and whether files differ."""
    ours = _code_of(PACKAGE / "__init__.py")
    return ours.commit, ours.dirty


def describe_commit() -> str:
    """The commit, and whether there are changes besides; or unknown, and why."""
    return str(_code_of(PACKAGE / "__init__.py"))


def fault() -> str | None:
    """Why git does not tell the commit, though there may be one."""
    why = _code_of(PACKAGE / "__init__.py").why
    return why if why.startswith("git ") else None


@functools.cache  # the code that this process runs does not change any more, whatever becomes of the checkout
def _code_of(file: Path) -> Code:
    folder, none = file.parent, Code(None, why=f"{file} is not in a git checkout")
    if not any((each / ".git").exists() for each in file.parents):
        return none
    try:
        # The file need not be part of it: a checkout around a virtual environment says nothing of what is installed.
        tracked = _git(folder, "ls-files", "--", file.name)
        new = not tracked and _git(folder, "status", "--porcelain", "--", file.name)
        if not tracked and (not new or folder == PACKAGE):
            return none
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        changed += _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *NEW_CODE)
        return Code(_git(folder, "rev-parse", "HEAD"), bool(changed))
    except subprocess.CalledProcessError as error:
        told = error.stderr.strip().partition("\n")[0]
        return none if "not a git repository" in told else Code(None, why=f"git says: {told}")
    except (OSError, subprocess.SubprocessError) as error:
        return Code(None, why=f"git cannot be asked ({error})")


def _git(folder: Path, *arguments: str) -> str:
    # Python runs the code of this checkout, whoever owns it; to git, which refuses that of another, it is no stranger.
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments]
    # In English, which is read above; without locks, so that no other git is kept waiting.
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
    return asked.stdout.strip()


def user() -> str:
    """The name of whoever runs this, or the number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user need not have a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
