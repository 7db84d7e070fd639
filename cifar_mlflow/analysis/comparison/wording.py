"""A comparison in words: labels, numbers, verdicts, and the notes that every format carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cifar_mlflow.analysis.comparison.single_models import ModelTest
from cifar_mlflow.analysis.comparison.verdicts import ALPHA, Apart, Comparison, Row, Spread, Verdict

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
        return ",".join(parameter(item) for item in value) or MISSING
    return "none" if value is None else plain(str(value))


def plain(text: str) -> str:
    """Without line breaks and escape sequences, which would upset a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def cell(parameters: Mapping[str, object], name: str) -> str:
    return parameter(parameters[name]) if name in parameters else MISSING


def label(row: Row, columns: Sequence[str]) -> str:
    """The configuration by the parameters that set it apart."""
    return ", ".join(f"{plain(name)} {cell(row.parameters, name)}" for name in columns) or "the only configuration"


def settings(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {parameter(value)}" for name, value in parameters.items())


def p_value(p: float) -> str:
    return "p<0.001" if p < 0.001 else f"p={p:.3f}"


def verdict(verdict: Verdict, objective: str) -> str:
    if verdict.kind == "worse" and verdict.difference is not None and verdict.p is not None:
        return f"worse by {number(verdict.difference, objective)} ({p_value(verdict.p)})"
    if verdict.kind == "one run":
        return "one run: no interval"
    return "" if verdict.kind == "none" else verdict.kind


def interval(row: Row, objective: str) -> str:
    low, high = row.summary.low, row.summary.high
    return MISSING if low is None else f"{number(low, objective)}–{number(high, objective)}"


def reported(row: Row) -> str:
    """Published accuracies: each, while they are few."""
    values = row.reported
    if len(values) <= 3:
        return " ".join(number(value) for value in values) or MISSING
    return f"{number(sum(values) / len(values))} (mean of {len(values)})"


def minutes(row: Row) -> str:
    return MISSING if row.minutes is None else f"{row.minutes:.1f}"


def test(row: Row) -> str:
    """Mean test accuracy, with its n where not all runs have one."""
    if row.test is None:
        return MISSING
    return number(row.test.mean) + (f" (n={row.test.n})" if row.test.n != row.summary.n else "")


def notes(comparison: Comparison) -> list[str]:
    """Sentences that belong to the table: how it was judged, what was left out, and what would settle more."""
    rows = comparison.rows
    written = [_method(comparison)]
    single = sum(row.summary.n == 1 for row in rows)
    if single:
        missing = "no interval" if comparison.replication else "no interval and no verdict"
        written.append(f"One run: {missing} for {count(single, 'configuration')} of {len(rows)}.")
    best = next((row for row in rows if row.verdict.kind == "best"), None)
    if best is not None and rows[0] is not best:
        written.append("A single run stands above the best repeated configuration: repeat it before believing it.")
    written += [_repeated_seed(row, seed, comparison) for row in rows for seed in row.repeats]
    written += [_apart(apart) for apart in comparison.apart]
    if comparison.model_tests:
        written.append(
            "Single models on the same images (McNemar's mid-p test; p for all pairs of models). "
            "This tells trained models apart, not configurations: another seed may come out otherwise."
        )
        written += [_model_test(test) for test in comparison.model_tests[:NAMES_SHOWN]]
        if len(comparison.model_tests) > NAMES_SHOWN:
            written.append(f"{len(comparison.model_tests) - NAMES_SHOWN} further models were tested: see JSON.")
    if not comparison.replication:
        written.append(_seeds(comparison.spread, comparison))
    if comparison.test_evaluations is not None:
        written.append(
            f"The test set was consulted {count(comparison.test_evaluations, 'time')} by these runs; "
            "each choice made by it makes its accuracy say less about new images."
        )
    written += [
        f"Reported, with no run here: {settings(entry.parameters) or 'no parameters'}: "
        f"{' '.join(number(value) for value in entry.accuracy)}."
        for entry in comparison.unmatched
    ]
    return [plain(note) for note in written]


def _method(comparison: Comparison) -> str:
    if comparison.replication:
        return (
            "A replication: no validation split, accuracy measured on the test set. "
            "Nothing may be chosen from this table, so it has no winner and no verdicts."
        )
    tested = sum(row.summary.n > 1 for row in comparison.rows)
    if tested < 2:
        return "No verdicts: they need two configurations with two seeds or more."
    pairs = comparison.spread.pairs if comparison.spread else 0
    which = f"all {pairs} pairs" if pairs > 1 else "the one pair"
    return (
        f"Verdicts: Welch's t-test with Holm's correction over {which} of repeated configurations; "
        f"worse means p < {ALPHA:g}. Intervals are 95% t-intervals of one mean."
    )


def _repeated_seed(row: Row, seed: int, comparison: Comparison) -> str:
    runs = row.repeats[seed]
    counted = next(run for run in row.runs if run.seed == seed)
    values = [run.metrics[comparison.objective] for run in (counted, *runs)]
    spread = max(values) - min(values)
    agreement = f"differ by up to {number(spread, comparison.objective)}" if spread else "agree to the last digit"
    return (
        f"Seed {seed} of {label(row, comparison.columns)} was run {len(values)} times (the results {agreement}): "
        f"counted once, by its first run {counted.name}."
    )


def _apart(apart: Apart) -> str:
    names = [run.name for run in apart.runs[:NAMES_SHOWN]]
    more = len(apart.runs) - len(names)
    return (
        f"Not compared, {apart.reason}: {count(len(apart.runs), 'run')} "
        f"({', '.join(names)}{f' and {more} more' if more else ''})."
    )


def _model_test(test: ModelTest) -> str:
    return (
        f"{test.best.name} {number(test.best_accuracy)}, {test.other.name} {number(test.other_accuracy)} "
        f"of {test.images:,} images: {test.only_best} right by the first alone, {test.only_other} by the second; "
        f"{p_value(test.p)}."
    )


def _seeds(spread: Spread | None, comparison: Comparison) -> str:
    if spread is None:
        return "The spread between seeds is unknown: run a configuration with two seeds or more."
    if spread.sd == 0:
        return "The seeds show no spread at all, so no number of them can be advised."
    difference = f"{comparison.difference:g}{' points' if 'accuracy' in comparison.objective else ''}"
    text = (
        f"To tell {difference} apart at the spread seen (standard deviation {number(spread.sd, comparison.objective)}, "
        f"{count(spread.degrees, 'degree')} of freedom) takes {spread.seeds_for_one_pair:,} seeds a configuration "
        f"for a single pair"
    )
    more = f", {spread.seeds_for_all_pairs:,} for all {spread.pairs} pairs here" if spread.pairs > 1 else ""
    return f"{text}{more} (power 80%)."


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
