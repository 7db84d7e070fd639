"""Find CIFAR-10 on this machine, or download it."""

from __future__ import annotations

from pathlib import Path


def download(data_dir: str = "auto", timeout: float = 30) -> Path:
    """Where CIFAR-10 is, downloaded to the user's cache if need be; see `learning.cifar10.locate`."""
    from cifar_mlflow.learning.data import cifar10

    return cifar10.locate(data_dir, timeout)
