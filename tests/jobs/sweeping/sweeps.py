"""What the sweeps of the tests are, and what they must come to."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from cifar_mlflow.jobs.sweeping import trial
from cifar_mlflow.tuning.executors import Event

BASE = {"epochs": 2, "batch_size": 8, "scheduler": "none", "precision": "float32"}
SPACE = {"activation": ["relu", "elu"], "learning_rate": [0.002, 0.01]}


def comparable(results: Path) -> list[dict[str, str]]:
    """The table in results.csv, without what differs between any two sweeps: run ids and times."""
    rows = list(csv.DictReader(io.StringIO(results.read_text())))
    return [{key: value for key, value in row.items() if key not in ("minutes", "run_ids")} for row in rows]


def trained_once(found) -> bool:
    """Whether no configuration was trained to the end twice with the same seed."""
    counts = Counter(run.data.tags["run_fingerprint"] for run in found if run.info.status == "FINISHED")
    return set(counts.values()) == {1}


class InlineExecutor:
    """Trains in this process, one run after the other, in the place of worker processes that take seconds to start."""

    def __init__(self, count, threads, task, *rest, **options) -> None:
        self._task, self._given = task, None
        trial._store.cache_clear()  # that of an earlier test

    def __enter__(self) -> InlineExecutor:
        return self

    def __exit__(self, *ending) -> None:
        pass

    @property
    def idle(self) -> int:
        return self._given is None

    def submit(self, task_id, argument) -> None:
        self._given = task_id, argument

    def events(self, timeout):
        (task_id, argument), self._given = self._given, None
        try:
            yield Event("done", task_id, self._task(argument, lambda event: True), None)
        except Exception as error:
            yield Event("failed", task_id, str(error), None)
