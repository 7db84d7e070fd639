"""A comparison in words: the columns of its table, and the notes that every format carries."""

import re
from collections.abc import Callable, Mapping, Sequence

from cifar_mlflow.analysis.comparison.configurations import circumstances
from cifar_mlflow.analysis.comparison.single_models import ModelTest
from cifar_mlflow.analysis.comparison.verdicts import ALPHA, Comparison, Row, Verdict
from cifar_mlflow.analysis.statistics import MeanInterval
from cifar_mlflow.text import count, plain

MISSING = "-"
NAMES_SHOWN = 5


def number(value: float | None, objective: str = "accuracy") -> str:
    """Accuracies are in per cent, with two decimals; other metrics have no fixed scale, so four digits."""
    if value is None:
        return MISSING
    return f"{value:.2f}" if "accuracy" in objective else f"{value:.4g}"


def parameter(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ",".join(map(parameter, value)) or MISSING
    return "none" if value is None else plain(str(value))


def cell(parameters: Mapping[str, object], name: str) -> str:
    return parameter(parameters[name]) if name in parameters else MISSING


def label(row: Row, columns: Sequence[str]) -> str:
    """The configuration by the parameters that set it apart."""
    return ", ".join(f"{plain(name)} {cell(row.parameters, name)}" for name in columns) or "the only configuration"


def columns(comparison: Comparison) -> list[tuple[str, Callable[[Row], str]]]:
    """Headings of the table behind the parameters, and how each cell is made; without columns that no row fills."""
    objective, rows = comparison.objective, comparison.rows
    found: list[tuple[bool, str, Callable[[Row], str]]] = [
        (True, "n", lambda row: str(row.summary.n)),
        (True, "mean", lambda row: number(row.summary.mean, objective)),
        (True, "95% interval", lambda row: interval(row.summary, objective)),
        (True, "min", lambda row: number(min(row.values), objective)),
        (True, "max", lambda row: number(max(row.values), objective)),
        (any(row.minutes is not None for row in rows), "minutes",
         lambda row: MISSING if row.minutes is None else f"{row.minutes:.1f}"),
        (any(row.test for row in rows), "test", _test),
        (any(row.reported for row in rows), "reported", _reported),
        (not comparison.replication, "verdict", lambda row: verdict(row.verdict, objective)),
    ]  # fmt: skip
    return [(heading, text) for shown, heading, text in found if shown]


def verdict(verdict: Verdict, objective: str) -> str:
    if verdict.kind == "worse" and verdict.difference is not None and verdict.p is not None:
        return f"worse by {number(verdict.difference, objective)} ({_p_value(verdict.p)})"
    return {"one run": "one run: no interval", "none": ""}.get(verdict.kind, verdict.kind)


def interval(summary: MeanInterval, objective: str) -> str:
    low, high = summary.low, summary.high
    if low is None:
        return MISSING if summary.n == 1 else "no spread"
    return f"{number(low, objective)}–{number(high, objective)}"


def _reported(row: Row) -> str:
    """Published accuracies: each, while they are few."""
    values = row.reported
    if len(values) <= 3:
        return " ".join(map(number, values)) or MISSING
    return f"{number(sum(values) / len(values))} (mean of {len(values)})"


def _test(row: Row) -> str:
    """Mean test accuracy, with its n where not all runs have one."""
    if row.test is None:
        return MISSING
    return number(row.test.mean) + (f" (n={row.test.n})" if row.test.n != row.summary.n else "")


def _p_value(p: float) -> str:
    return "p<0.001" if p < 0.001 else f"p={p:.3f}"


def notes(comparison: Comparison) -> list[str]:
    """Sentences that belong to the table: how it was judged, what was left out, and what would settle more."""
    rows, tests = comparison.rows, comparison.model_tests
    written = [_method(comparison)]
    if single := sum(row.summary.n == 1 for row in rows):
        missing = "no interval" if comparison.replication else "no interval and no verdict"
        written.append(f"One run: {missing} for {count(single, 'configuration')} of {len(rows)}.")
    if comparison.best is not None and rows[0] is not comparison.best:
        written.append("A single run stands above the best repeated configuration: repeat it before believing it.")
    written += [*_chosen_by_seed(rows), *_circumstances(comparison)]
    written += [_repeated_seed(row, seed, comparison) for row in rows for seed in row.repeats]
    for reason, runs in comparison.excluded.items():
        names = _named([run.name for run in runs], ", ")
        written.append(f"Not compared, {reason}: {count(len(runs), 'run')} ({names}).")
    if tests:
        written.append(
            "Single models on the same images (McNemar's mid-p test; p for all pairs of models). "
            "This tells trained models apart, not configurations: another seed may come out otherwise."
        )
        written += map(_model_test, tests[:NAMES_SHOWN])
        if len(tests) > NAMES_SHOWN:
            written.append(f"{len(tests) - NAMES_SHOWN} further models were tested: see JSON.")
    if not comparison.replication:
        written += _seeds(comparison)
    if comparison.test_evaluations is not None:
        written.append(
            f"The test set was consulted {count(comparison.test_evaluations, 'time')} by these runs; "
            "each choice made by it makes its accuracy say less about new images."
        )
    for entry in comparison.unmatched:
        settings = ", ".join(f"{name} {parameter(value)}" for name, value in entry.parameters.items())
        accuracies = " ".join(map(number, entry.accuracy))
        written.append(f"Reported, with no run here: {settings or 'no parameters'}: {accuracies}.")
    return list(map(plain, written))


def _method(comparison: Comparison) -> str:
    if comparison.replication:
        return (
            "A replication: no validation split, accuracy measured on the test set. "
            "Nothing may be chosen from this table, so it has no winner and no verdicts."
        )
    if sum(row.summary.n > 1 for row in comparison.rows) < 2:
        return "No verdicts: they need two configurations with two seeds or more."
    pairs = comparison.spread.pairs if comparison.spread else 0
    which = f"all {pairs} pairs" if pairs > 1 else "the one pair"
    return (
        "Verdicts: t-tests with moderated variances (each drawn towards that of all, as far as they agree; Welch's "
        f"degrees of freedom) and Shaffer's correction over {which} of repeated configurations; "
        f"worse means p < {ALPHA:g}. Intervals are 95% t-intervals of one mean, by its own spread."
    )


def _chosen_by_seed(rows: Sequence[Row]) -> list[str]:
    """What a pruner's choice does to the means: the seed that brought a configuration through is a lucky one."""
    written = []
    if fresh := sum(bool(row.chosen_by) and not row.judged_by_luck for row in rows):
        seeds = ", ".join(map(str, sorted({run.seed for row in rows for run in row.chosen_by})))
        written.append(
            f"Successive halving chose {count(fresh, 'configuration')} by seed {seeds}, which was lucky therefore: "
            "it is not counted, they are judged by their other seeds alone."
        )
    if lucky := sum(row.judged_by_luck for row in rows):
        written.append(
            f"Successive halving chose {count(lucky, 'configuration')} by the one seed there is, so that nothing can "
            "be said of its value but that it was lucky: a sweep with more repeats judges by fresh seeds."
        )
    return written


def _circumstances(comparison: Comparison) -> list[str]:
    """Where the runs of a row differ in more than the seed; rows that differ in the same are told together."""
    labels: dict[str, list[str]] = {}
    for row in comparison.rows:
        differ = [f"{name} ({', '.join(map(_short, values))})" for name, values in circumstances(row.runs).items()]
        if differ:
            labels.setdefault("; ".join(differ), []).append(label(row, comparison.columns))
    return [f"Not by seed alone differ the runs of {_named(names)}: {differ}." for differ, names in labels.items()]


def _short(value: str) -> str:
    """A commit by its first digits."""
    return value[:8] if re.fullmatch("[0-9a-f]{40}", value) else value


def _named(names: Sequence[str], separator: str = "; ") -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return separator.join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _repeated_seed(row: Row, seed: int, comparison: Comparison) -> str:
    counted = next(run for run in row.runs if run.seed == seed)
    values = [run.metrics[comparison.objective] for run in (counted, *row.repeats[seed])]
    spread = max(values) - min(values)
    agreement = f"differ by up to {number(spread, comparison.objective)}" if spread else "agree to the last digit"
    return (
        f"Seed {seed} of {label(row, comparison.columns)} was run {len(values)} times (the results {agreement}): "
        f"counted once, by its first run {counted.name}."
    )


def _model_test(test: ModelTest) -> str:
    return (
        f"{test.best.name} {number(test.best_accuracy)}, {test.other.name} {number(test.other_accuracy)} "
        f"of {test.images:,} images: {test.only_best} right by the first alone, {test.only_other} by the second; "
        f"{_p_value(test.p)}."
    )


def _seeds(comparison: Comparison) -> list[str]:
    """The spread between seeds, and how many seeds the wanted difference takes."""
    spread, objective = comparison.spread, comparison.objective
    if spread is None:
        return ["The spread between seeds is unknown: run a configuration with two seeds or more."]
    if spread.sd == 0:
        return ["The seeds show no spread at all, so no number of them can be advised."]
    seen = f"standard deviation {number(spread.sd, objective)}, {count(spread.degrees, 'degree')} of freedom"
    if spread.left_out:
        seen += f", without {count(spread.left_out, 'configuration')} of far more"
    if comparison.difference is None or spread.seeds_for_one_pair is None:
        return [f"Spread between seeds: {seen}; --difference says how many seeds find it."]
    more = f", {spread.seeds_for_all_pairs:,} for all {spread.pairs} pairs here" if spread.pairs > 1 else ""
    return [
        f"To tell {comparison.difference:g}{' points' if 'accuracy' in objective else ''} apart at the spread seen "
        f"({seen}) "
        f"takes {spread.seeds_for_one_pair:,} seeds a configuration for a single pair{more} (power 80%)."
    ]
