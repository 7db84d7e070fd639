"""What is needed before anything long is started: a tracking store that answers, and the data."""

from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.tracking import store as tracking_store


@process_state.preserved()
def check() -> str:
    """The store's URI, without its password.

    Raises:
        TrackingError: the store does not answer within seconds, or cannot be used.
    """
    return tracking_store.redact(tracking_store.connect().uri)


def download(data_dir: str = "auto", timeout: float = 30) -> Path:
    """Where CIFAR-10 is, downloaded to the user's cache if need be; see `learning.data.cifar10.locate`."""
    from cifar_mlflow.learning.data import cifar10

    return cifar10.locate(data_dir, timeout)
