"""The latest runs and sweeps of a store."""

from cifar_mlflow import process_state
from cifar_mlflow.records import RunSummary
from cifar_mlflow.text import redact
from cifar_mlflow.tracking import uris
from cifar_mlflow.tracking.reading import latest as reading

FIRST_RUN = "cifar-mlflow train --dataset digits --epochs 2"


@process_state.preserved()
def latest(count: int = 20, experiment: str | None = None) -> list[RunSummary]:
    """The `count` runs and sweeps that began last, the newest first; a sweep stands for its runs.

    Raises:
        ModelError: there is no such experiment.
        TrackingError: the store cannot be read.
    """
    return reading.read(count, experiment)


def place() -> str:
    """Where `latest` looks: the address of the store, without a password."""
    return redact(uris.in_use())
