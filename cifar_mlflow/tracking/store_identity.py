"""Which store it is: something by which one is known again at another path, under another address or password.

An experiment keeps its number and the millisecond in which it was made for ever, and no other store has both. Nothing
needs to be written for that, and a store that was put back from a backup is still the same.
"""

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.store import Store, translated_errors

MISSING = "RESOURCE_DOES_NOT_EXIST"  # MLflow's answer if there is no such run or experiment


def identity(store: Store, experiment_id: str) -> str:
    """The store that has this experiment; a TrackingError if it has not, or cannot be reached."""
    with translated_errors(store.uri):
        experiment = store.client.get_experiment(experiment_id)
    return f"{experiment.experiment_id}@{experiment.creation_time}"


def is_same(store: Store, known: str) -> bool:
    """Whether the store is the one whose `identity` was `known`; a TrackingError if it cannot be reached."""
    try:
        return identity(store, known.partition("@")[0]) == known
    except TrackingError as error:
        if is_missing(error):
            return False
        raise


def is_missing(error: TrackingError) -> bool:
    """Whether the store has answered that what was asked for is not there."""
    return getattr(error.__cause__, "error_code", None) == MISSING
