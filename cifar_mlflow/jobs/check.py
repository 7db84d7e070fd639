"""Check that the tracking store answers, before anything long is started."""

from __future__ import annotations

from cifar_mlflow import process_state
from cifar_mlflow.tracking import store as tracking_store


@process_state.preserved()
def check() -> str:
    """The store's URI, without its password.

    Raises:
        TrackingError: the store does not answer within seconds, or cannot be used.
    """
    return tracking_store.redact(tracking_store.connect().uri)
