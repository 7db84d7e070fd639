"""Which runs a word on the command line means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cifar_mlflow.errors import ConfigurationError, TrackingError
from cifar_mlflow.tracking import runs
from cifar_mlflow.tracking.history import RUN_ID
from cifar_mlflow.tracking.store import Store, redact, translated_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

# What trained a network: neither a sweep's parent nor the run that `mlflow run` makes for a job.
TRAINED = "tags.kind != 'sweep' and tags.kind != 'job'"


def select(store: Store, what: Sequence[str], condition: str | None = None) -> list[Run]:
    """The training runs that `what` names, each once, the oldest first.

    Each word is a run id (that of a sweep's parent stands for the sweep's runs), an experiment's name or a sweep's
    name. `condition` is a filter in MLflow's language that all of them must meet; without any word, all experiments
    are searched.

    Raises:
        TrackingError: a word names nothing.
        ConfigurationError: MLflow refuses the filter.
    """
    found: dict[str, Run] = {}
    try:
        for word in what or [""]:
            for run in _meant_by(store, word, condition):
                found.setdefault(run.info.run_id, run)
    except TrackingError as error:
        if condition and getattr(error.__cause__, "error_code", None) == "INVALID_PARAMETER_VALUE":
            raise ConfigurationError(f"--filter: MLflow refuses {condition!r}: {error.__cause__}", "options") from None
        raise
    return sorted(found.values(), key=lambda run: (run.info.start_time, run.info.run_id))


def _meant_by(store: Store, word: str, condition: str | None) -> list[Run]:
    by_name = experiments(store)
    extra = f" and {condition}" if condition else ""
    if not word:
        return [run for each in by_name.values() for run in runs.search(store, each, f"{TRAINED}{extra}")]
    if RUN_ID.fullmatch(word):
        (run,) = [found for each in by_name.values() for found in _by_id(store, each, word)] or [None]
        if run is None:
            raise TrackingError(f"there is no run {word} in {redact(store.uri)}")
        if run.data.tags.get("kind") != "sweep":
            chosen = f"attributes.run_id = '{word}'{extra}"
        else:
            chosen = f"{TRAINED} and tags.sweep_id = '{run.data.tags.get('sweep_id', word)}'{extra}"
        return runs.search(store, run.info.experiment_id, chosen)
    if word in by_name:
        return runs.search(store, by_name[word], f"{TRAINED}{extra}")
    if re.fullmatch(r"[\w.-]+", word):
        named = f"{TRAINED} and tags.sweep = '{word}'{extra}"
        if found := [run for each in by_name.values() for run in runs.search(store, each, named)]:
            return found
    known = ", ".join(sorted(by_name)) or "none"
    raise TrackingError(
        f"{word!r} names no run, no experiment and no sweep{' that the filter lets through' if condition else ''} "
        f"in {redact(store.uri)} (experiments: {known})"
    )


def _by_id(store: Store, experiment_id: str, run_id: str) -> list[Run]:
    return runs.search(store, experiment_id, f"attributes.run_id = '{run_id}'")


def experiments(store: Store) -> dict[str, str]:
    """Name to id of every experiment that is not deleted."""
    found = {}
    token = None
    with translated_errors(store.uri):
        while True:
            page = store.client.search_experiments(page_token=token)
            found.update({experiment.name: experiment.experiment_id for experiment in page})
            token = page.token
            if not token:
                return found
