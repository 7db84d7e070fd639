"""The values of a metric by epoch, of many runs at once: asked for one by one, they would take a request a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from cifar_mlflow.tracking.retry import patiently
from cifar_mlflow.tracking.store import Store, translated_errors

MOST_RUNS = 100  # of which MLflow's server answers a single request
MOST_POINTS = 2_500  # of a run; beyond that the server leaves points out
MOST_ROWS = 100_000  # that a database store is asked for at once
ENDPOINT = "/api/2.0/mlflow/metrics/get-history-bulk-interval"

Point = tuple[str, int, float]
"""Run id, epoch, value."""


def read(store: Store, run_ids: Sequence[str], metric: str) -> dict[str, list[tuple[int, float]]]:
    """Run id to the (epoch, value) pairs of the metric, in the order of the epochs.

    Raises:
        TrackingError: the store cannot be read.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    with translated_errors(store.uri):
        for start in range(0, len(run_ids), MOST_RUNS):
            chunk = run_ids[start : start + MOST_RUNS]
            by_run = _together(store, chunk, metric)
            for run_id in chunk:
                points = by_run.get(run_id)
                if points is None:  # it has more points than are told at once, or the store knows no such request
                    points = [(point.step, point.value) for point in store.client.get_metric_history(run_id, metric)]
                found[run_id] = sorted(points)
    return found


def _together(store: Store, run_ids: Sequence[str], metric: str) -> dict[str, list[tuple[int, float]]]:
    """What one request tells of the runs; those of which it may tell only a part are left out."""
    if store.uri.startswith("http"):
        return _complete(_from_server(store, run_ids, metric), MOST_POINTS)
    # MlflowClient has no such method; its server asks its own database store by this one.
    database: Any = getattr(getattr(store.client, "_tracking_client", None), "store", None)
    if not hasattr(database, "get_metric_history_bulk"):
        return {}
    rows = patiently(database.get_metric_history_bulk)(list(run_ids), metric, MOST_ROWS)
    return _complete(((row.run_id, row.step, row.value) for row in rows), MOST_POINTS if len(rows) < MOST_ROWS else 0)


def _from_server(store: Store, run_ids: Sequence[str], metric: str) -> Iterable[Point]:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    wanted: dict[str, Any] = {"run_ids": list(run_ids), "metric_key": metric, "max_results": MOST_POINTS}
    answer = http_request(get_default_host_creds(store.uri), ENDPOINT, "GET", params=wanted)
    if answer.status_code != 200:
        return []
    return [(point["run_id"], int(point["step"]), float(point["value"])) for point in answer.json().get("metrics", [])]


def _complete(points: Iterable[Point], most: int) -> dict[str, list[tuple[int, float]]]:
    """The points by run, without the runs that have `most` or more."""
    by_run: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for run_id, step, value in points:
        by_run[run_id].append((step, value))
    return {run_id: found for run_id, found in by_run.items() if len(found) < most}
