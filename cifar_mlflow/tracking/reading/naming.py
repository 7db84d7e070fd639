"""A run by the word that a person gives: its id, a beginning of the id, or its name."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial

from cifar_mlflow.errors import ModelError
from cifar_mlflow.text import did_you_mean
from cifar_mlflow.tracking import queries
from cifar_mlflow.tracking.reading import runs, status
from cifar_mlflow.tracking.store import Run, Store

BEGINNING = re.compile(r"[0-9a-f]{6,31}")
RUN = "a run (its id, a beginning of it with 6 digits or more, or its name)"
MOST_TOLD = 8  # of several runs with the same name
LATEST = 1000  # runs among whose names a similar one is looked for


def find(store: Store, word: str) -> str | None:
    """The id of the run that `word` names, None if there is none; a whole id is taken as it is.

    Raises:
        ModelError: several have this name, or begin so.
    """
    return word if runs.RUN_ID.fullmatch(word) else only(word, matches(store, word))


def matches(store: Store, word: str) -> dict[str, str]:
    """The ids of the runs that are called `word`, or whose ids begin so, the newest first, with what tells them apart.

    A run that `mlflow run` made for another command is one of them only if no other is.
    """
    names = {experiment_id: name for name, experiment_id in runs.experiments(store).items()}
    found = []
    if BEGINNING.fullmatch(word):
        found += runs.search(store, names, f"attributes.run_id LIKE '{word}%'")
    quote = '"' if "'" in word else "'"  # MLflow's filter cannot hold every name, and refuses those
    named = partial(runs.search, store, names, f"attributes.run_name = {quote}{word}{quote}")
    found += queries.find(named) or []
    found = [run for run in found if run.data.tags.get("kind") != "job"] or found
    found.sort(key=lambda run: -run.info.start_time)
    return {run.info.run_id: _description(run, names[run.info.experiment_id]) for run in found}


def _description(run: Run, experiment: str) -> str:
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    accuracy = run.data.metrics.get("final_val_accuracy")
    scored = "" if accuracy is None else f", validation accuracy {accuracy:.2f}%"
    told = status.of(run.info.status, run.data.tags)
    return f"{run.info.run_name}, in {experiment}, {told}, begun {started:%Y-%m-%d %H:%M} UTC{scored}"


def only(word: str, found: Mapping[str, str]) -> str | None:
    """The one id that was found, None if none was; ModelError that tells them apart if several were."""
    if len(found) < 2:
        return next(iter(found), None)
    told = [f"\n  - {run_id}: {description}" for run_id, description in list(found.items())[:MOST_TOLD]]
    more = f"\n  and {len(found) - MOST_TOLD} older ones" if len(found) > MOST_TOLD else ""
    raise ModelError(
        f"{word!r} names {len(found)} runs; give the id of one, or a beginning of it:{''.join(told)}{more}"
    )


def hint(store: Store, word: str, others: Iterable[str] = ()) -> str:
    """Which of the latest runs' names, or of `others`, `word` may have meant."""
    experiments = list(runs.experiments(store).values())
    order = ["attributes.start_time DESC"]
    latest = store.client.search_runs(experiments, max_results=LATEST, order_by=order) if experiments else []
    return did_you_mean(word, {*others, *(run.info.run_name for run in latest)})
