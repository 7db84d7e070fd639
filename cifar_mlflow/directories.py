"""Where the package keeps what must outlive a process, and what can be had again."""

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from cifar_mlflow.errors import ConfigurationError, causes

STATE_VARIABLE = "CIFAR_MLFLOW_STATE"


def state_directory() -> Path:
    """$CIFAR_MLFLOW_STATE, else the user's state directory: outboxes, checkpoints, journals of sweeps, neighbours."""
    if given := os.environ.get(STATE_VARIABLE):
        try:
            return Path(given).expanduser().absolute()
        except RuntimeError as error:  # of a user that is not there
            raise ConfigurationError(f"{STATE_VARIABLE}={given}: {error}", "environment") from None
    import platformdirs

    return platformdirs.user_state_path("cifar-mlflow").absolute()


def cache_directory() -> Path:
    """The user's cache: datasets and weights that were downloaded, the only place for them, and decoded images."""
    import platformdirs

    return platformdirs.user_cache_path("cifar-mlflow")


def writable(part: str) -> Path:
    """The directory `part` of the state directory, made if it is new, in which files can be written.

    Raises ConfigurationError if it cannot be made, or no file can be written there.
    """
    directory = state_directory() / part
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise ConfigurationError(
            f"{directory} cannot be written ({error.strerror}); set {STATE_VARIABLE} to a directory that can",
            "environment",
        ) from None
    return directory


def spool_directory() -> Path:
    """Where the outboxes of all runs are."""
    return state_directory() / "spool"


def no_room(error: BaseException, places: Mapping[Path, str] = MappingProxyType({})) -> str | None:
    """Which disk is full, and what to do, if that is what the error, or what led to it, says; else None.

    That is the one with the least room: where the file was that the error names, where temporary files are, or one of
    the `places` where else was written, each with the variable that names another.
    """
    found = list(causes(error))
    full = (errno.ENOSPC, errno.EDQUOT)
    # Of many files that could not be written, MLflow tells in words alone.
    if not any(getattr(each, "errno", None) in full or f"[Errno {full[0]}]" in str(each) for each in found):
        return None
    temporary = Path(tempfile.gettempdir())
    named = [getattr(each, name, None) for each in found for name in ("filename", "filename2")]
    files = [Path(each) for each in named if isinstance(each, str) and not Path(each).is_relative_to(temporary)]
    places = {**{file.parent: "" for file in files}, **places, temporary: "TMPDIR"}
    free = {place: shutil.disk_usage(_existing(place)).free for place in places}
    fullest = min(free, key=lambda place: free[place])
    other = f", or set {places[fullest]} to another directory" if places[fullest] else ""
    return f"no room is left in {fullest} ({free[fullest] / 1e6:,.1f} MB on that disk): make some there{other}"


def unwritable(directory: Path) -> str | None:
    """Why no file can be written in the directory, or made where it is to be; None if one can. Nothing stays there."""
    try:
        with tempfile.TemporaryFile(dir=_existing(directory)) as probe:
            probe.write(b"\0")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))


def write_whole(path: Path, content: bytes) -> None:
    """Writes the file, whole or not at all: what was there before stays until then. OSError if it cannot be written."""
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
