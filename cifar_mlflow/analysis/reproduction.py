"""Two trainings of one configuration, number by number: the same to the bit, within a tolerance, or different.

A metric is given as its values by epoch, counted from 1; what is written once, at the end of a run, stands at epoch 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cifar_mlflow.tables import table
from cifar_mlflow.text import count

Series = Mapping[int, float]
AT_THE_END = 0

IDENTICAL, EQUAL, DIFFERENT = "identical", "equal", "different"


@dataclass(frozen=True)
class MetricComparison:
    """One metric of both runs. `differs` are the epochs whose bits differ, `beyond` those beyond the tolerance."""

    name: str
    original: Series
    again: Series
    differs: tuple[int, ...]
    beyond: tuple[int, ...]
    largest: float  # the largest absolute difference; infinite where a number stands against none, or against NaN
    largest_at: int  # the epoch of it

    @property
    def verdict(self) -> str:
        return DIFFERENT if self.beyond else EQUAL if self.differs else IDENTICAL


@dataclass(frozen=True)
class Reproduction:
    """The comparison of a run with its original, over the epochs that the original has."""

    metrics: tuple[MetricComparison, ...]
    tolerance: float

    @property
    def verdict(self) -> str:
        """identical, equal (within the tolerance) or different."""
        verdicts = {metric.verdict for metric in self.metrics}
        return next(verdict for verdict in (DIFFERENT, EQUAL, IDENTICAL) if verdict in verdicts)

    @property
    def epochs(self) -> int:
        """The epochs that were compared."""
        return len({epoch for metric in self.metrics for epoch in metric.original} - {AT_THE_END})

    @property
    def summary(self) -> str:
        """The verdict as one sentence."""
        by_epoch = sum(set(metric.original) != {AT_THE_END} for metric in self.metrics)
        compared = f"{count(by_epoch, 'metric')} over {count(self.epochs, 'epoch')}"
        if finals := len(self.metrics) - by_epoch:
            compared += f" and {count(finals, 'final metric')}"
        if self.verdict == IDENTICAL:
            return f"identical to the bit: {compared}"
        worst = max(self.metrics, key=lambda metric: metric.largest)
        at = "at the end" if worst.largest_at == AT_THE_END else f"epoch {worst.largest_at}"
        largest = f"the largest difference is {worst.largest:.3g} ({worst.name}, {at})"
        if self.verdict == EQUAL:
            return f"equal within the tolerance {self.tolerance:g}: {compared}; {largest}"
        epochs = [epoch for metric in self.metrics for epoch in metric.beyond if epoch != AT_THE_END]
        where = f"from epoch {min(epochs)} on" if epochs else "at the end"
        return f"different {where} (tolerance {self.tolerance:g}): {largest}"

    def table(self) -> str:
        """A header and one line a metric, as aligned plain text."""
        rows = []
        for metric in self.metrics:
            verdict = "within tolerance" if metric.verdict == EQUAL else metric.verdict
            first = "-" if not metric.differs else "end" if metric.differs[0] == AT_THE_END else str(metric.differs[0])
            rows.append((metric.name, verdict, first, f"{metric.largest:.3g}"))
        return table(rows, "llrr", ("metric", "verdict", "differs from epoch", "largest difference")) + "\n"

    def document(self) -> dict[str, object]:
        """Everything, for JSON: values as [epoch, value], those that JSON does not know as text (nan, inf)."""
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "tolerance": self.tolerance,
            "epochs": self.epochs,
            "metrics": [
                {
                    "metric": metric.name,
                    "verdict": metric.verdict,
                    "epochs_that_differ": list(metric.differs),
                    "epochs_beyond_tolerance": list(metric.beyond),
                    "largest_difference": _plain(metric.largest),
                    "original": [[epoch, _plain(value)] for epoch, value in sorted(metric.original.items())],
                    "again": [[epoch, _plain(value)] for epoch, value in sorted(metric.again.items())],
                }
                for metric in self.metrics
            ],
        }


def compare(original: Mapping[str, Series], again: Mapping[str, Series], tolerance: float) -> Reproduction:
    """Compares every metric of `original`, which holds one value or more, at every epoch that it has there.

    a of the original and b are equal if |a - b| <= tolerance * max(1, |a|). NaN is equal to NaN.
    """
    compared = [_compare(name, series, again.get(name, {}), tolerance) for name, series in original.items()]
    return Reproduction(tuple(compared), tolerance)


def _compare(name: str, original: Series, again: Series, tolerance: float) -> MetricComparison:
    differences = {epoch: _difference(value, again.get(epoch)) for epoch, value in sorted(original.items())}
    differs = tuple(epoch for epoch, difference in differences.items() if difference)
    beyond = tuple(
        epoch
        for epoch in differs
        # A tolerance relative to an infinite value would let everything pass.
        if differences[epoch] == math.inf or differences[epoch] > tolerance * max(1, abs(original[epoch]))
    )
    largest_at = max(differences, key=differences.__getitem__)
    return MetricComparison(name, original, again, differs, beyond, differences[largest_at], largest_at)


def _difference(value: float, other: float | None) -> float:
    if other is None:
        return math.inf
    if value == other or (math.isnan(value) and math.isnan(other)):
        return 0.0
    difference = abs(value - other)
    return math.inf if math.isnan(difference) else difference


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
