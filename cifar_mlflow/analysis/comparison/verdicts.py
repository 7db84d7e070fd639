"""Which configurations the evidence tells apart, judged by the spread of their runs, which differ by seed alone."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Literal

from cifar_mlflow.analysis import statistics
from cifar_mlflow.analysis.comparison import configurations, single_models
from cifar_mlflow.analysis.comparison.configurations import Reported
from cifar_mlflow.analysis.comparison.single_models import ModelTest
from cifar_mlflow.analysis.statistics import MeanInterval
from cifar_mlflow.config.sweep import is_of_the_test_set
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.records import RunRecord
from cifar_mlflow.text import whole_number

REPLICATION_OBJECTIVE = "epoch_test_accuracy"
PRUNED = "pruned"
CHOSEN_BY_SEED = "chosen_by_seed"  # tag of a run with whose seed a pruner chose the configuration
ALPHA = 0.05
POINTS_WORTH_FINDING = 0.5  # between accuracies; there is no such number for a loss, whose unit says nothing


@dataclass(frozen=True)
class Verdict:
    """What may be said of a configuration; difference and p (after Shaffer's correction) are those with the best."""

    kind: Literal["best", "not distinguishable", "worse", "one run", "nothing to compare with", "none"]
    difference: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Row:
    """One configuration: its runs (one a seed) and their objective."""

    parameters: dict[str, object]
    runs: tuple[RunRecord, ...]
    values: tuple[float, ...]  # objective of each run, in the order of runs
    repeats: dict[int, tuple[RunRecord, ...]]  # by seed, its further runs: no new evidence, so not counted
    chosen_by: tuple[RunRecord, ...]  # runs by which a pruner chose it: lucky ones, so not counted beside others
    summary: MeanInterval
    minutes: float | None
    verdict: Verdict
    test: MeanInterval | None  # test accuracy, if asked for and known
    reported: tuple[float, ...] = ()  # published accuracies of the same parameters

    @property
    def judged_by_luck(self) -> bool:
        """Whether it has nothing but the run by which a pruner chose it."""
        return bool(self.chosen_by) and self.runs == self.chosen_by

    def curve(self, metric: str) -> list[tuple[int, float, float, float]]:
        """(epoch, mean, lowest, highest) of the metric over the runs, in the order of the epochs."""
        values: defaultdict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            for epoch, value in run.curves.get(metric, []):
                if math.isfinite(value):
                    values[epoch].append(value)
        return [(epoch, sum(each) / len(each), min(each), max(each)) for epoch, each in sorted(values.items())]


@dataclass(frozen=True)
class Spread:
    """Variation between seeds, and how many seeds a configuration needs for the wanted difference to be found.

    The numbers of seeds are None if no difference is wanted.
    """

    sd: float
    degrees: int
    left_out: int  # configurations that spread far more than most, and are not in it
    seeds_for_one_pair: int | None
    pairs: int  # pairs of repeated configurations in this comparison
    seeds_for_all_pairs: int | None  # seeds with which the difference is found after correction for that many pairs


@dataclass(frozen=True)
class Comparison:
    """The table, best configuration first (a replication: in the order of its parameters), and what goes with it."""

    objective: str
    difference: float | None
    replication: bool
    columns: tuple[str, ...]  # parameters that differ between the rows, or from what was pruned
    common: dict[str, object]  # parameters that all rows share
    rows: tuple[Row, ...]
    excluded: dict[str, tuple[RunRecord, ...]]  # by reason, the runs that are not compared
    model_tests: tuple[ModelTest, ...]
    spread: Spread | None
    test_evaluations: int | None  # how often the runs consulted the test set; None unless test results are shown
    unmatched: tuple[Reported, ...]  # published results of which no run here has the parameters

    @property
    def best(self) -> Row | None:
        """The best of the repeated configurations, if there are several."""
        return next((row for row in self.rows if row.verdict.kind == "best"), None)


def compare(
    runs: Sequence[RunRecord],
    *,
    objective: str = "final_val_accuracy",
    difference: float | None = None,
    with_test: bool = False,
    reported: Iterable[Mapping[str, object]] = (),
) -> Comparison:
    """Group runs into configurations and judge each against the best.

    objective is a validation metric; larger is better unless its name says loss or error. difference, in its unit, is
    the one worth finding (default: 0.5 points of an accuracy, none of another metric). Each entry of reported maps
    parameters to values, and accuracy to the published values.
    If no run has a validation split, the runs are a replication: epoch_test_accuracy is shown and nothing is judged.

    Raises ConfigurationError if there are no runs, the objective is measured on the test set or no finished run has it,
    difference is not positive, or an entry of reported has no accuracy.
    """
    refused = partial(ConfigurationError, source="comparison")
    if not runs:
        raise refused("no runs to compare")
    if difference is not None and not 0 < difference < math.inf:
        raise refused(f"difference must be a positive number, got {difference}")
    if is_of_the_test_set(objective):
        raise refused(f"{objective} is measured on the test set: choose by a validation metric")
    published = [configurations.parse_reported(entry) for entry in reported]

    trained = [run for run in runs if run.kind != "sweep"]
    replication = bool(trained) and all(map(_is_replication, trained))
    if replication:
        objective = REPLICATION_OBJECTIVE
    if difference is None and "accuracy" in objective:
        difference = POINTS_WORTH_FINDING
    by_reason: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_reason[_why_excluded(run, objective, replication)].append(run)
    compared, without = by_reason.pop("", []), by_reason.get(f"no {objective}", [])
    if without and not compared:
        names = ", ".join(sorted({name for run in without for name in run.metrics})) or "none"
        raise refused(f"no finished run has the metric {objective}; they have: {names}")

    groups = configurations.group_by_configuration(compared)
    sign = 1 if lower_is_better(objective) else -1
    rows = sorted(
        (_row(parameters, group, objective, with_test, published) for parameters, group in groups),
        key=lambda row: (0 if replication else sign * row.summary.mean, configurations.sorting_key(row.parameters)),
    )
    if not replication:
        rows = _judge(rows, objective, sign)
    pruned = map(configurations.configuration_of, by_reason.get(PRUNED, []))
    columns, common = _columns([row.parameters for row in rows], pruned)
    singles = [] if replication else [row.runs[0] for row in rows if len(row.runs) == 1]
    consulted = sum(whole_number(run.tags.get("test_evaluations"), 0) for run in runs)
    unmatched = [entry for entry in published if not any(configurations.matches(entry, row.parameters) for row in rows)]
    return Comparison(
        objective=objective,
        difference=difference,
        replication=replication,
        columns=columns,
        common=common,
        rows=tuple(rows),
        excluded={reason: tuple(group) for reason, group in sorted(by_reason.items())},
        model_tests=single_models.compare_models(singles),
        spread=_spread(rows, objective, difference),
        test_evaluations=consulted if with_test or replication else None,
        unmatched=tuple(unmatched),
    )


def lower_is_better(objective: str) -> bool:
    return "loss" in objective or "error" in objective


def curve_metric(objective: str) -> str:
    """The metric logged each epoch of which the objective is the final or the best value."""
    return objective.removeprefix("final_").removeprefix("best_")


def _is_replication(run: RunRecord) -> bool:
    return run.parameters.get("validation_size") == 0


def _why_excluded(run: RunRecord, objective: str, replication: bool) -> str:
    """Why the run is not compared; empty if it is."""
    if run.kind == "sweep":
        return "parent of a sweep"
    if run.tags.get("pruned") == "true":
        return PRUNED
    if run.status != "FINISHED":
        return run.status
    if _is_replication(run) and not replication:
        return "no validation split"
    return "" if math.isfinite(run.metrics.get(objective, math.nan)) else f"no {objective}"


def _row(
    parameters: dict[str, object], runs: list[RunRecord], objective: str, with_test: bool, published: list[Reported]
) -> Row:
    by_seed: defaultdict[int, list[RunRecord]] = defaultdict(list)
    # The first run with a seed counts: a rule that cannot pick the better of two.
    for run in sorted(runs, key=lambda run: (run.start_time.timestamp() if run.start_time else math.inf, run.run_id)):
        by_seed[run.seed].append(run)
    counted = tuple(by_seed[seed][0] for seed in sorted(by_seed))
    chosen_by = tuple(run for run in counted if any(CHOSEN_BY_SEED in same.tags for same in by_seed[run.seed]))
    counted = tuple(run for run in counted if run not in chosen_by) or counted
    values = tuple(run.metrics[objective] for run in counted)
    minutes = [run.minutes for run in counted if run.minutes is not None]
    test = [value for run in counted if math.isfinite(value := run.metrics.get("test_accuracy", math.nan))]
    matching = [entry.accuracy for entry in published if configurations.matches(entry, parameters)]
    return Row(
        parameters=parameters,
        runs=counted,
        values=values,
        repeats={run.seed: tuple(by_seed[run.seed][1:]) for run in counted if len(by_seed[run.seed]) > 1},
        chosen_by=chosen_by,
        summary=summarized(values, objective, _images(counted, objective)),
        minutes=sum(minutes) / len(minutes) if minutes else None,
        verdict=Verdict("none"),
        test=statistics.mean_interval(test, bounds=statistics.PER_CENT) if with_test and test else None,
        reported=tuple(chain.from_iterable(matching)),
    )


def summarized(values: Sequence[float], objective: str, images: int) -> MeanInterval:
    """The values of one configuration; `images` are those that its objective was measured on, 0 if unknown."""
    return statistics.mean_interval(values, bounds=statistics.bounds_of(objective), floor=_least(objective, images))


def _least(objective: str, images: int) -> float:
    """The least variance of the objective's values; 0 for one that is no share of images, or of an unknown number."""
    return statistics.rounding_variance(images) if images and "accuracy" in objective else 0.0


def _images(runs: Sequence[RunRecord], objective: str) -> int:
    split = "test" if is_of_the_test_set(objective) else "validation"
    return min((run.images[split] for run in runs if run.images.get(split)), default=0)


def _floor(runs: Sequence[RunRecord], objective: str) -> float:
    return _least(objective, _images(runs, objective))


def _judge(rows: list[Row], objective: str, sign: int) -> list[Row]:
    """Verdicts for rows sorted best first; only repeated configurations can be best, for one run may be luck."""
    floors = [_floor(row.runs, objective) for row in rows]
    p_values = statistics.pairwise_tests([row.values for row in rows], floors)
    repeated = [position for position, row in enumerate(rows) if row.summary.n > 1]

    def verdict(position: int, row: Row) -> Verdict:
        if row.summary.n == 1:
            return Verdict("one run")
        best = repeated[0]
        if position == best:
            return Verdict("best" if len(repeated) > 1 else "nothing to compare with")
        p = float(p_values[position, best])
        gap = sign * (row.summary.mean - rows[best].summary.mean)
        return Verdict("worse" if p < ALPHA else "not distinguishable", gap, p)

    return [replace(row, verdict=verdict(position, row)) for position, row in enumerate(rows)]


def _columns(
    rows: list[dict[str, object]], pruned: Iterable[dict[str, object]]
) -> tuple[tuple[str, ...], dict[str, object]]:
    """Names of the parameters that differ, and the values of the others, if there are rows.

    What was pruned counts too: that a parameter has one value left in the rows is what the sweep has found.
    """
    if not rows:
        return (), {}
    known, missing = (*rows, *pruned), object()
    names = dict.fromkeys(chain.from_iterable(known))
    varied = {name: len({configurations.hashable(each.get(name, missing)) for each in known}) > 1 for name in names}
    return tuple(name for name in names if varied[name]), {name: rows[0][name] for name in names if not varied[name]}


def _spread(rows: list[Row], objective: str, difference: float | None) -> Spread | None:
    typical = statistics.typical_sd([row.values for row in rows], [_floor(row.runs, objective) for row in rows])
    if typical is None:
        return None
    sd, degrees, left_out = typical
    pairs = math.comb(sum(row.summary.n > 1 for row in rows), 2)
    one, every = (
        None if difference is None else statistics.seeds_needed(sd, difference, alpha=ALPHA / count)
        for count in (1, max(1, pairs))
    )
    return Spread(sd, degrees, left_out, one, pairs, every)
