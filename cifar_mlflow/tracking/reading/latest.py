"""The latest runs of a store: from an SQLite file at once, from any other by MLflow, which takes seconds to import."""

import math
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from cifar_mlflow.errors import ModelError
from cifar_mlflow.records import RunSummary
from cifar_mlflow.text import did_you_mean, redact
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking import uris
from cifar_mlflow.tracking.reading import runs, status
from cifar_mlflow.tracking.reading.sweeps import WINNER_TAG

# The revision of MLflow's tables (those of 3.17) that is read without MLflow. In any other, MLflow reads its own.
TABLES = "dc11669786a5"
# What a run is best known by: the first of these that it has.
OBJECTIVES = ("final_val_accuracy", "val_accuracy", "epoch_test_accuracy", "train_accuracy")
METRICS = (*OBJECTIVES, "test_accuracy")
HIDDEN = ("job", "trial")  # kinds of runs: what `mlflow run` makes for a command, and what a sweep stands for
Metrics = Mapping[str, float | None]  # latest values by name


@dataclass(frozen=True)
class _Found:
    """A run as either reader finds it; times are milliseconds since 1970."""

    run_id: str
    name: str
    kind: str
    experiment: str
    status: str
    started: int | None
    ended: int | None
    tags: Mapping[str, str]
    metrics: Metrics


def read(count: int, experiment: str | None) -> list[RunSummary]:
    """The `count` runs and sweeps that began last, the newest first; a sweep stands for its runs.

    A store that is not there yet has none, and is not made.

    Raises:
        ModelError: there is no such experiment.
        TrackingError: the store cannot be read.
    """
    uri = uris.in_use()
    file = uris.sqlite_file(uri)
    if file and not file.exists():
        _chosen({}, experiment, uri)
        return []
    if file:
        with suppress(sqlite3.Error), closing(uris.read_only(file)) as tables:
            if _are_known(tables):
                return _from_tables(tables, count, experiment, uri)
    return _from_mlflow(count, experiment)


def _chosen(experiments: Mapping[str, str], wanted: str | None, uri: str) -> dict[str, str]:
    """Id to name of the experiments, given by name, that are to be looked into."""
    if wanted is not None and wanted not in experiments:
        hint = did_you_mean(wanted, experiments)
        raise ModelError(f"there is no experiment {wanted!r} in {redact(uri)}{hint}")
    return {number: name for name, number in experiments.items() if wanted in (None, name)}


def _from_mlflow(count: int, experiment: str | None) -> list[RunSummary]:
    store = tracking_store.connect()
    names = _chosen(runs.experiments(store), experiment, store.uri)
    if not names:
        return []
    shown = " and ".join(f"tags.kind != '{kind}'" for kind in HIDDEN)
    order = ["attributes.start_time DESC", "attributes.run_id ASC"]
    listed = store.client.search_runs(list(names), shown, max_results=count, order_by=order)
    found = [
        _Found(
            run.info.run_id, run.info.run_name or run.info.run_id, run.data.tags["kind"], names[run.info.experiment_id],
            run.info.status, run.info.start_time, run.info.end_time, run.data.tags, run.data.metrics,
        )
        for run in listed
    ]  # fmt: skip
    quoted = ", ".join(f"'{run.tags[WINNER_TAG]}'" for run in found if WINNER_TAG in run.tags)
    winners = store.client.search_runs(list(names), f"attributes.run_id IN ({quoted})") if quoted else []
    return _summaries(found, {run.info.run_id: run.data.metrics for run in winners})


def _are_known(tables: sqlite3.Connection) -> bool:
    """Whether they are MLflow's as `_from_tables` reads them, without workspaces."""
    revisions = tables.execute("SELECT version_num FROM alembic_version").fetchall()
    elsewhere = "SELECT 1 FROM experiments WHERE workspace <> 'default'"
    return revisions == [(TABLES,)] and not tables.execute(elsewhere).fetchone()


def _from_tables(tables: sqlite3.Connection, count: int, experiment: str | None, uri: str) -> list[RunSummary]:
    kept = tables.execute("SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'")
    names = _chosen(dict(kept), experiment, uri)
    of_them = f"lifecycle_stage = 'active' AND experiment_id IN {_places(names)}"
    rows = tables.execute(
        f"""
        SELECT run_uuid, COALESCE(NULLIF(name, ''), run_uuid), value, experiment_id, status, start_time, end_time
        FROM runs JOIN tags USING (run_uuid)
        WHERE key = 'kind' AND value NOT IN {_places(HIDDEN)} AND {of_them}
        ORDER BY start_time DESC, run_uuid LIMIT ?
        """,
        (*HIDDEN, *names, count),
    ).fetchall()
    ids = [row[0] for row in rows]
    tags = _by_run(tables, "key, value FROM tags", "TRUE", (), ids)
    winners = [tags[run_id][WINNER_TAG] for run_id in ids if WINNER_TAG in tags[run_id]]
    scores = "key, CASE is_nan WHEN 0 THEN value END FROM latest_metrics JOIN runs USING (run_uuid)"
    condition = f"key IN {_places(METRICS)} AND {of_them}"
    metrics = _by_run(tables, scores, condition, (*METRICS, *names), [*ids, *winners])
    found = [
        _Found(run_id, name, kind, names[number], told, started, ended, tags[run_id], metrics.get(run_id, {}))
        for run_id, name, kind, number, told, started, ended in rows
    ]
    return _summaries(found, metrics)


def _by_run(
    tables: sqlite3.Connection, what: str, condition: str, values: Collection[str], ids: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Of each of the runs `ids` the keys with their values, which `what` names and from where."""
    found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    query = f"SELECT run_uuid, {what} WHERE {condition} AND run_uuid IN {_places(ids)}"
    for run_id, key, value in tables.execute(query, (*values, *ids)):
        found[run_id][key] = value
    return dict(found)


def _places(values: Collection[object]) -> str:
    return f"({', '.join('?' * len(values))})"


def _summaries(found: Iterable[_Found], scores: Mapping[str, Metrics]) -> list[RunSummary]:
    """`scores` has the metrics of the sweeps' winners, by run."""
    summaries = []
    for run in found:
        metrics = scores.get(run.tags.get(WINNER_TAG, ""), run.metrics)
        metric = next((name for name in OBJECTIVES if name in metrics), None)
        told = status.of(run.status, run.tags)
        summary = RunSummary(
            run_id=run.run_id,
            name=run.name,
            kind=run.kind,
            experiment=run.experiment,
            status=told,
            metric=metric,
            accuracy=_number(metrics.get(metric or "")),
            test_accuracy=_number(metrics.get("test_accuracy")),
            started=runs.moment(run.started),
            minutes=(run.ended - run.started) / 60_000 if run.started and run.ended else None,
            go_on=status.remedy(run.run_id, run.tags) if told == status.DIED else None,
        )
        summaries.append(summary)
    return summaries


def _number(value: float | None) -> float | None:
    """JSON has no other: what is not finite is none."""
    return value if value is not None and math.isfinite(value) else None
