"""Where the package keeps what must outlive a process."""

import os
import tempfile
from pathlib import Path

from cifar_mlflow.errors import ConfigurationError

STATE_VARIABLE = "CIFAR_MLFLOW_STATE"


def state_directory() -> Path:
    """$CIFAR_MLFLOW_STATE, else the user's state directory: outboxes, checkpoints, journals of sweeps, neighbours."""
    if given := os.environ.get(STATE_VARIABLE):
        return Path(given).expanduser().absolute()
    import platformdirs

    return platformdirs.user_state_path("cifar-mlflow").absolute()


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
