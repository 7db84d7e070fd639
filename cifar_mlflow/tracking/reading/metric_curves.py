"""The values of metrics by epoch: of one metric of many runs with few requests, or of several metrics of one run."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from cifar_mlflow.tracking.retry import patiently
from cifar_mlflow.tracking.store import Store, translated_errors

MOST_RUNS = 100  # that one request to MLflow's server may name
MOST_POINTS = 2_500  # of a run that the server returns; beyond that it leaves points out
MOST_ROWS = 100_000  # that a database store is asked for at once
ENDPOINT = "/api/2.0/mlflow/metrics/get-history-bulk-interval"

Point = tuple[str, int, float]
"""Run id, epoch, value."""


def read(store: Store, run_ids: Sequence[str], metric: str) -> dict[str, list[tuple[int, float]]]:
    """Run id to the (epoch, value) pairs of the metric, in the order of the epochs."""
    found: dict[str, list[tuple[int, float]]] = {}
    with translated_errors(store.uri):
        for start in range(0, len(run_ids), MOST_RUNS):
            chunk = run_ids[start : start + MOST_RUNS]
            by_run = _together(store, chunk, metric)
            for run_id in chunk:
                # It may have more points than one request returns, or the store know no such request.
                if (points := by_run.get(run_id)) is None:
                    points = [(point.step, point.value) for point in store.client.get_metric_history(run_id, metric)]
                found[run_id] = sorted(points)
    return found


def read_run(store: Store, run_id: str, metrics: Iterable[str]) -> dict[str, dict[int, float]]:
    """Metric to its values by epoch, for those of `metrics` that the run has; of two values at one epoch the later."""
    points = {name: store.client.get_metric_history(run_id, name) for name in metrics}
    by_time = {name: sorted(found, key=lambda point: point.timestamp) for name, found in points.items() if found}
    return {name: {point.step: point.value for point in found} for name, found in by_time.items()}


def _together(store: Store, run_ids: Sequence[str], metric: str) -> dict[str, list[tuple[int, float]]]:
    """The points that one request returns, by run; runs of which it may have returned only a part are left out."""
    if store.uri.startswith("http"):
        return _complete(_from_server(store, run_ids, metric), MOST_POINTS)
    # MlflowClient has no such request. Its private store has it, which is what MLflow's own server asks.
    database: Any = getattr(getattr(store.client, "_tracking_client", None), "store", None)
    if not hasattr(database, "get_metric_history_bulk"):
        return {}
    rows = patiently(database.get_metric_history_bulk)(list(run_ids), metric, MOST_ROWS)
    return _complete(((row.run_id, row.step, row.value) for row in rows), MOST_POINTS if len(rows) < MOST_ROWS else 0)


def _from_server(store: Store, run_ids: Sequence[str], metric: str) -> Iterable[Point]:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    wanted = {"run_ids": list(run_ids), "metric_key": metric, "max_results": MOST_POINTS}
    answer = http_request(get_default_host_creds(store.uri), ENDPOINT, "GET", params=wanted)
    if answer.status_code != 200:
        return []
    return [(point["run_id"], int(point["step"]), float(point["value"])) for point in answer.json().get("metrics", [])]


def _complete(points: Iterable[Point], most: int) -> dict[str, list[tuple[int, float]]]:
    """The points by run, without the runs that have `most` or more."""
    by_run = defaultdict(list)
    for run_id, step, value in points:
        by_run[run_id].append((step, value))
    return {run_id: found for run_id, found in by_run.items() if len(found) < most}
