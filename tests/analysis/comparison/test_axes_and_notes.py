"""Values of mixed kinds on one axis, test results of some runs alone, and notes on one or many pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cifar_mlflow.analysis.comparison import svg, wording
from cifar_mlflow.analysis.comparison.verdicts import compare
from cifar_mlflow.records import RunRecord

MakeRun = Callable[..., RunRecord]


def test_a_word_among_many_numbers_has_a_place_of_its_own() -> None:
    values = [*range(1, 13), "auto"]
    places, ticks = svg._axis(values, 300, 0)
    assert len(places) == len(values)
    assert places == sorted(places, reverse=True)
    assert [text for _, text in ticks] == [*map(str, range(1, 13)), "auto"]
    assert len(svg._axis([*range(1, 13), True], 300, 0)[0]) == 13


def columns(runs: list[RunRecord], **options: object) -> dict[str, list[str]]:
    comparison = compare(runs, **options)  # type: ignore[arg-type]
    return {heading: [text(row) for row in comparison.rows] for heading, text in wording.columns(comparison)}


def test_test_results_tell_of_how_many_runs_they_are(make_run: MakeRun) -> None:
    def runs(name: str, tested: int) -> list[RunRecord]:
        accuracy = {"relu": 80.0, "elu": 70.0, "gelu": 60.0}[name]
        return [
            make_run(
                accuracy + seed,
                seed,
                parameters={"activation": name},
                metrics={"test_accuracy": accuracy - seed} if seed < tested else {},
            )
            for seed in range(2)
        ]

    found = columns([*runs("relu", 2), *runs("elu", 1), *runs("gelu", 0)], with_test=True)
    assert found["test"] == ["79.50", "70.00 (n=1)", "-"]
    assert "test" not in columns(runs("gelu", 0), with_test=True)


@pytest.mark.parametrize(
    ("configurations", "told"), [(2, "for a single pair (power 80%)"), (3, " for all 3 pairs here (p")]
)
def test_how_many_seeds_all_pairs_take_is_told_where_there_are_several(
    make_run: MakeRun, configurations: int, told: str
) -> None:
    runs = [
        make_run(70.0 + number + seed / 5, seed, parameters={"a": number})
        for number in range(configurations)
        for seed in range(3)
    ]
    notes = " ".join(wording.notes(compare(runs)))
    assert told in notes
    assert ("all 3 pairs" in notes) is (configurations == 3)
    assert "Verdicts: t-tests" in notes
    assert ("over the one pair of" in notes) is (configurations == 2)


def test_one_repeated_configuration_has_no_verdict(make_run: MakeRun) -> None:
    runs = [make_run(70.0 + seed, seed, parameters={"a": 1}) for seed in range(2)]
    notes = " ".join(wording.notes(compare([*runs, make_run(80.0, parameters={"a": 2})])))
    assert "No verdicts: they need two configurations with two seeds or more." in notes


def test_no_interval_is_a_dash_for_one_run_and_no_spread_for_equal_ones(make_run: MakeRun) -> None:
    equal = [make_run(None, seed, parameters={"a": 1}, metrics={"val_loss": 0.5}) for seed in range(2)]
    single = [make_run(None, parameters={"a": 2}, metrics={"val_loss": 0.6})]
    assert columns([*equal, *single], objective="val_loss")["95% interval"] == ["no spread", "-"]
