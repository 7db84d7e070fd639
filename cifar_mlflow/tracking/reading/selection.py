"""Which runs a word on the command line means."""

import re
from collections.abc import Mapping, Sequence

from cifar_mlflow.errors import ConfigurationError, ModelError, TrackingError
from cifar_mlflow.tracking import queries
from cifar_mlflow.tracking.queries import TRAINED
from cifar_mlflow.tracking.reading import naming, runs, sweeps
from cifar_mlflow.tracking.store import Run, Store, redact

MOST_IDS = 100  # in one search: MLflow parses what is listed word by word


def select(store: Store, what: Sequence[str], condition: str | None = None) -> list[Run]:
    """The training runs that `what` names, each once, the oldest first.

    Each word is an experiment's name, a sweep's name, or a run as in `naming.find` (a sweep's parent stands for the
    sweep's runs). `condition` is a filter in MLflow's language that all of them must meet; without any word, all
    experiments are searched. ModelError if a word names nothing, ConfigurationError if MLflow refuses the filter.
    """
    extra = f" and {condition}" if condition else ""
    ids = [word for word in what if runs.RUN_ID.fullmatch(word)]
    try:
        by_name = runs.experiments(store)
        chosen = [] if what else runs.search(store, by_name.values(), TRAINED + extra)
        for word in what:
            if word in ids:
                continue
            if found := _by_name(store, by_name, word, extra):
                chosen += found
            elif word not in by_name:
                ids.append(_by_beginning_or_name(store, by_name, word, bool(extra)))
        chosen += _by_ids(store, by_name, ids, extra)
    except TrackingError as error:
        if condition and queries.error_code(error) == "INVALID_PARAMETER_VALUE":
            raise ConfigurationError(f"--filter: MLflow refuses {condition!r}: {error.__cause__}", "options") from None
        raise
    once = {run.info.run_id: run for run in chosen}.values()
    return sorted(once, key=lambda run: (run.info.start_time, run.info.run_id))


def _by_ids(store: Store, by_name: Mapping[str, str], ids: Sequence[str], extra: str) -> list[Run]:
    named = {run.info.run_id: run for run in _with_ids(store, by_name, ids)}
    if missing := next((run_id for run_id in ids if run_id not in named), None):
        runs.find_kept(store, missing)  # says that it was deleted, or is nowhere
        raise ModelError(f"there is no run {missing} in {redact(store.uri)}")
    parents = {run_id: run for run_id, run in named.items() if run.data.tags.get("kind") == "sweep"}
    others = [run_id for run_id in named if run_id not in parents]
    found = _with_ids(store, by_name, others, extra) if extra else [named[run_id] for run_id in others]
    for parent_id, parent in parents.items():
        children = f"{TRAINED} and tags.sweep_id = '{parent.data.tags.get('sweep_id', parent_id)}'{extra}"
        found += runs.search(store, [parent.info.experiment_id], children)
    return found


def _with_ids(store: Store, by_name: Mapping[str, str], ids: Sequence[str], extra: str = "") -> list[Run]:
    found = []
    for start in range(0, len(ids), MOST_IDS):
        listed = ", ".join(f"'{run_id}'" for run_id in ids[start : start + MOST_IDS])
        found += runs.search(store, by_name.values(), f"attributes.run_id IN ({listed}){extra}")
    return found


def _by_name(store: Store, by_name: Mapping[str, str], word: str, extra: str) -> list[Run]:
    if word in by_name:
        return runs.search(store, [by_name[word]], TRAINED + extra)
    of_sweep = f"{TRAINED} and tags.sweep = '{word}'{extra}"
    return runs.search(store, by_name.values(), of_sweep) if re.fullmatch(r"[\w.-]+", word) else []


def _by_beginning_or_name(store: Store, by_name: Mapping[str, str], word: str, filtered: bool) -> str:
    if found := naming.find(store, word):
        return found
    known, through = ", ".join(sorted(by_name)) or "none", " that the filter lets through" if filtered else ""
    hint = naming.hint(store, word, {*by_name, *sweeps.names(store)})
    nothing = f"{word!r} names no run, no experiment and no sweep{through} in {redact(store.uri)}"
    raise ModelError(f"{nothing}{hint} (experiments: {known})")
