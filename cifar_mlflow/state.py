"""Where the package keeps what must outlive a process."""

from __future__ import annotations

import os
from pathlib import Path

STATE_VARIABLE = "CIFAR_MLFLOW_STATE"


def state_directory() -> Path:
    """$CIFAR_MLFLOW_STATE, else the user's state directory: spools, checkpoints and the journals of sweeps."""
    if given := os.environ.get(STATE_VARIABLE):
        return Path(given).expanduser().absolute()
    import platformdirs

    return platformdirs.user_state_path("cifar-mlflow").absolute()


def spool_directory() -> Path:
    """Where the spools of all runs are."""
    return state_directory() / "spool"
