"""Runs of configurations to compare, and what a comparison says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cifar_mlflow.analysis.comparison import wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison
from cifar_mlflow.records import RunRecord

MakeRun = Callable[..., RunRecord]


def repeats(
    make_run: MakeRun,
    accuracies: list[float],
    images: dict[str, int] | None = None,
    metrics: dict[str, float] | None = None,
    **parameters: Any,
) -> list[RunRecord]:
    given = {"activation": "relu", "validation_size": 5000, **parameters}
    return [
        make_run(value, seed, parameters=given, images=images or {}, metrics=metrics or {})
        for seed, value in enumerate(accuracies)
    ]


def kinds(comparison: Comparison) -> list[str]:
    return [row.verdict.kind for row in comparison.rows]


def said(comparison: Comparison) -> str:
    return "\n".join(wording.notes(comparison))
