"""The latest runs and sweeps of a store."""

import math
from dataclasses import dataclass
from datetime import datetime

from cifar_mlflow import process_state
from cifar_mlflow.errors import ModelError
from cifar_mlflow.text import did_you_mean, redact
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import runs
from cifar_mlflow.tracking.reading.sweeps import WINNER_TAG

FIRST_RUN = "cifar-mlflow train --dataset digits --epochs 2"
# What a run is best known by: the first of these that it has.
OBJECTIVES = ("final_val_accuracy", "val_accuracy", "epoch_test_accuracy", "train_accuracy")


@dataclass(frozen=True)
class RunSummary:
    """A run or a sweep in one line. Accuracies are per cent, None where there is none (yet); `started` is in UTC.

    Those of a sweep are its winner's.
    """

    run_id: str
    name: str
    kind: str
    experiment: str
    status: str
    metric: str | None
    accuracy: float | None
    test_accuracy: float | None
    started: datetime | None
    minutes: float | None


@process_state.preserved()
def latest(count: int = 20, experiment: str | None = None) -> list[RunSummary]:
    """The `count` runs and sweeps that began last, the newest first; a sweep stands for its runs.

    Raises:
        ModelError: there is no such experiment.
        TrackingError: the store cannot be read.
    """
    store = tracking_store.connect()
    by_name = runs.experiments(store)
    if experiment is not None:
        if experiment not in by_name:
            hint = did_you_mean(experiment, by_name)
            raise ModelError(f"there is no experiment {experiment!r} in {redact(store.uri)}{hint}")
        by_name = {experiment: by_name[experiment]}
    names = {experiment_id: name for name, experiment_id in by_name.items()}
    shown = "tags.kind != 'job' and tags.kind != 'trial'"
    order = ["attributes.start_time DESC", "attributes.run_id ASC"]
    found = store.client.search_runs(list(names), shown, max_results=count, order_by=order) if names else []
    won = {run.info.run_id: run.data.tags[WINNER_TAG] for run in found if WINNER_TAG in run.data.tags}
    quoted = ", ".join(f"'{run_id}'" for run_id in won.values())
    winning = store.client.search_runs(list(names), f"attributes.run_id IN ({quoted})") if won else []
    winners = {run.info.run_id: run.data.metrics for run in winning}
    summaries = []
    for run, record in zip(found, runs.to_records(store, found), strict=True):
        metrics = winners.get(won.get(record.run_id, ""), record.metrics)
        metric = next((name for name in OBJECTIVES if name in metrics), None)
        summary = RunSummary(
            run_id=record.run_id,
            name=record.name,
            kind=record.kind,
            experiment=names[run.info.experiment_id],
            status=record.status,
            metric=metric,
            accuracy=_number(metrics.get(metric or "")),
            test_accuracy=_number(metrics.get("test_accuracy")),
            started=record.start_time,
            minutes=record.minutes,
        )
        summaries.append(summary)
    return summaries


def _number(value: float | None) -> float | None:
    """JSON has no other: what is not finite is none."""
    return value if value is not None and math.isfinite(value) else None
