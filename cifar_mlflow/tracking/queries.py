"""Requests to the store that several readers make in the same way; each raises TrackingError as the client does."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cifar_mlflow.directories import unwritable
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.store import LoggedModel, Store, redact, translated_errors

Found = TypeVar("Found")
PAGE = 1000  # entries of a request; MLflow's server refuses more registered models than that
# What trained a network: neither a sweep's parent nor the run that `mlflow run` makes for a job.
TRAINED = "tags.kind != 'sweep' and tags.kind != 'job'"
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what MLflow answers for a name that it does not have


def error_code(error: TrackingError) -> str | None:
    """MLflow's code for what went wrong, such as RESOURCE_ALREADY_EXISTS; None if MLflow itself never answered."""
    return getattr(error.__cause__, "error_code", None)


def find(request: Callable[..., Found], *arguments: Any) -> Found | None:
    """What `request`, a method of the client, answers; None if the store has no such thing."""
    try:
        return request(*arguments)
    except TrackingError as error:
        if error_code(error) in ABSENT:
            return None
        raise


def search_all(search: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """All pages of what `search`, a method of the client, finds."""
    from mlflow.utils import get_results_from_paginated_fn

    request = functools.partial(search, *arguments, **options)
    return list(get_results_from_paginated_fn(lambda size, token: request(max_results=size, page_token=token), PAGE))


def models_of_run(store: Store, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """The models that were logged by the run, complete or not."""
    return search_all(store.client.search_logged_models, [experiment_id], f"source_run_id = '{run_id}'")


def check_artifact_location(store: Store, experiment_id: str) -> None:
    """TrackingError if the experiment keeps its artifacts in a directory, and no file can be written there."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    experiment = store.client.get_experiment(experiment_id)
    location = experiment.artifact_location
    with translated_errors(store.uri):  # it may name another machine
        local = is_local_uri(location, is_tracking_or_registry_uri=False)
    if not local:
        return
    if reason := unwritable(Path(local_file_uri_to_path(location))):
        of_server = ", or have the server take artifacts itself (mlflow server --serve-artifacts)"
        raise TrackingError(
            f"the experiment {experiment.name!r} of {redact(store.uri)} keeps its artifacts in {redact(location)}, "
            f"which cannot be written here ({reason}): give yourself the right to write there, or use another "
            f"experiment{of_server if store.uri.startswith('http') else ''}"
        )
