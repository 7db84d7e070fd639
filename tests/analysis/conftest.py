from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cifar_mlflow.records import RunRecord

MakeRun = Callable[..., RunRecord]


@pytest.fixture
def make_run() -> MakeRun:
    """A finished run from what a test cares about; later calls make later runs."""
    number = itertools.count(1)

    def make(accuracy: float | None = 70.0, seed: int = 0, **fields: Any) -> RunRecord:
        count = next(number)
        metrics = {} if accuracy is None else {"final_val_accuracy": accuracy}
        defaults = {
            "run_id": f"id{count}",
            "name": f"run-{count}",
            "status": "FINISHED",
            "parameters": {"activation": "relu", "validation_size": 5000},
            "minutes": 2.0,
            "start_time": datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=count),
        }
        metrics |= fields.pop("metrics", {})
        return RunRecord(**{**defaults, **fields, "seed": seed, "metrics": metrics})

    return make
