"""What is said of each configuration against the best, and how often that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compared import MakeRun, kinds, repeats, said

from cifar_mlflow.analysis.comparison import wording
from cifar_mlflow.analysis.comparison.verdicts import compare
from cifar_mlflow.records import Predictions, RunRecord


def test_verdicts_against_the_best(make_run: MakeRun) -> None:
    comparison = compare(
        [
            *repeats(make_run, [70.0, 70.2, 70.1], activation="relu"),
            *repeats(make_run, [76.0, 76.4, 76.1], activation="prelu"),
            *repeats(make_run, [75.8, 76.3, 76.0], activation="elu"),
        ]
    )
    assert [row.parameters["activation"] for row in comparison.rows] == ["prelu", "elu", "relu"]
    assert kinds(comparison) == ["best", "not distinguishable", "worse"]
    worse = comparison.rows[2].verdict
    assert worse.difference == pytest.approx(76.16667 - 70.1, abs=1e-4)
    assert worse.p is not None
    assert wording.verdict(worse, "final_val_accuracy") == f"worse by 6.07 (p{'<' if worse.p < 0.001 else '='}" + (
        "0.001)" if worse.p < 0.001 else f"{worse.p:.3f})"
    )
    assert "all 3 pairs" in said(comparison)


def test_a_loss_is_better_when_lower(make_run: MakeRun) -> None:
    def run(loss: float, seed: int, activation: str) -> RunRecord:
        return make_run(50.0, seed, metrics={"val_loss": loss}, parameters={"activation": activation})

    low, high = [0.70, 0.71, 0.72], [0.90, 0.91, 0.92]
    runs = [
        run(loss, seed, name) for name, values in (("elu", high), ("relu", low)) for seed, loss in enumerate(values)
    ]
    comparison = compare(runs, objective="val_loss", difference=0.01)
    assert [row.parameters["activation"] for row in comparison.rows] == ["relu", "elu"]
    assert comparison.rows[1].verdict.difference == pytest.approx(0.2)
    assert kinds(comparison) == ["best", "worse"]


def test_one_run_is_said_and_never_best(make_run: MakeRun) -> None:
    comparison = compare(
        [
            make_run(99.0, parameters={"activation": "silu", "validation_size": 5000}),
            *repeats(make_run, [70.0, 70.2], activation="relu"),
            *repeats(make_run, [71.0, 70.1], activation="elu"),
        ]
    )
    assert kinds(comparison) == ["one run", "best", "not distinguishable"]
    assert wording.verdict(comparison.rows[0].verdict, "final_val_accuracy") == "one run: no interval"
    assert comparison.rows[0].summary.low is None
    assert "no verdict for 1 configuration of 3" in said(comparison)
    assert "single run stands above the best" in said(comparison)


def test_nothing_is_best_without_a_second_repeated_configuration(make_run: MakeRun) -> None:
    single = make_run(60.0, parameters={"activation": "silu", "validation_size": 5000})
    comparison = compare([*repeats(make_run, [70.0, 70.2]), single])
    assert kinds(comparison) == ["nothing to compare with", "one run"]
    assert "No verdicts" in said(comparison)


def test_replication_has_a_table_and_no_winner(make_run: MakeRun) -> None:
    runs = [
        make_run(None, seed, metrics={"epoch_test_accuracy": value + seed}, tags={"test_evaluations": "30"},
                 parameters={"batch_size": size, "validation_size": 0})
        for size, value in ((128, 77.0), (32, 70.0), (64, 10.0)) for seed in (0, 1)
    ]  # fmt: skip
    comparison = compare(runs)
    assert comparison.replication
    assert comparison.objective == "epoch_test_accuracy"
    assert [row.parameters["batch_size"] for row in comparison.rows] == [32, 64, 128]
    assert set(kinds(comparison)) == {"none"}
    assert comparison.test_evaluations == 180
    assert "replication" in said(comparison)
    assert "worse" not in said(comparison)


def predictions(correct: int, index: np.ndarray[Any, Any]) -> Predictions:
    """The first `correct` images of the split are right."""
    label = index % 10
    return Predictions(index, label, np.where(index < correct, label, label + 1))


def test_single_models_are_compared_on_the_images_they_share(make_run: MakeRun) -> None:
    images = np.arange(1000)
    better = make_run(80.0, parameters={"a": 1}, predictions=predictions(800, images))
    # The same images in another order.
    worse = make_run(76.0, parameters={"a": 2}, predictions=predictions(760, images[::-1]))
    elsewhere = make_run(90.0, parameters={"a": 3}, predictions=predictions(900, images[:900]))
    comparison = compare([worse, better, elsewhere])
    (test,) = comparison.model_tests
    assert (test.best, test.other, test.images) == (better, worse, 1000)
    assert (test.best_accuracy, test.other_accuracy) == (80.0, 76.0)
    assert (test.only_best, test.only_other) == (40, 0)
    assert test.p == pytest.approx(2 * 0.5**40 - 0.5**40)
    assert set(kinds(comparison)) == {"one run"}
    assert "not configurations" in said(comparison)


def test_models_p_values_allow_for_all_pairs(make_run: MakeRun) -> None:
    images = np.arange(1000)
    runs = [
        make_run(80.0, parameters={"a": number}, predictions=predictions(800 - 6 * number, images))
        for number in range(3)
    ]
    tests = compare(runs).model_tests
    assert [test.only_best for test in tests] == [6, 12]
    assert tests[0].p == pytest.approx(3 * 0.5**6)


def test_repeated_configurations_are_not_compared_by_their_models(make_run: MakeRun) -> None:
    images = np.arange(100)
    runs = [
        make_run(70.0 + seed, seed, parameters={"a": a}, predictions=predictions(70, images))
        for a in (1, 2) for seed in (0, 1)
    ]  # fmt: skip
    assert compare(runs).model_tests == ()


def test_seeds_for_the_wanted_difference(make_run: MakeRun) -> None:
    runs = [run for a in range(4) for run in repeats(make_run, [75.29, 76.0, 76.71], activation=a)]
    spread = compare(runs).spread
    assert spread is not None
    assert (spread.sd, spread.degrees, spread.pairs) == (pytest.approx(0.71), 8, 6)
    assert spread.seeds_for_one_pair == 33
    assert spread.seeds_for_all_pairs > 45
    assert "takes 33 seeds a configuration for a single pair" in said(compare(runs))
    assert "To tell 5 points" in said(compare(runs, difference=5))
    assert "spread between seeds is unknown" in said(compare([make_run()]))


@pytest.mark.parametrize("spread", ["equal", "unequal", "coarse"])
@pytest.mark.parametrize("configurations", [2, 5, 20])
def test_equal_configurations_are_seldom_called_worse(make_run: MakeRun, configurations: int, spread: str) -> None:
    """Family-wise error of the verdicts, also with spreads that differ tenfold and with accuracies of 200 images."""
    generator = np.random.default_rng(configurations)
    deviation = np.linspace(0.2, 2, configurations) if spread == "unequal" else np.full(configurations, 0.7)
    wrong = 0
    for _ in range(200):
        results = generator.normal(76, deviation[:, None], (configurations, 3))
        results = np.round(results * 2) / 2 if spread == "coarse" else results
        runs = [
            run for a, values in enumerate(results)
            for run in repeats(make_run, values.tolist(), images={"validation": 200}, activation=a)
        ]  # fmt: skip
        wrong += "worse" in kinds(compare(runs))
    assert wrong / 200 <= (0.13 if spread == "unequal" else 0.08)


@pytest.mark.parametrize("configurations", [2, 5, 20])
def test_a_difference_that_is_large_is_found_with_three_seeds(make_run: MakeRun, configurations: int) -> None:
    """The error test alone would pass if nothing were ever called worse; Welch's test finds 2% of 20 here."""
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(60):
        runs = [
            run for a in range(configurations)
            for run in repeats(make_run, generator.normal(76 - 2.8 * (a > 0), 0.7, 3).tolist(), activation=a)
        ]  # fmt: skip
        found += kinds(compare(runs)).count("worse")
    assert found / (60 * (configurations - 1)) >= 0.65


def test_values_of_few_images_that_agree_have_an_interval(make_run: MakeRun) -> None:
    known = compare(repeats(make_run, [97.9, 97.9], images={"train": 1200, "validation": 143})).rows[0]
    assert wording.interval(known.summary, "final_val_accuracy") == "96.09–99.71"
    unknown = compare(repeats(make_run, [97.9, 97.9])).rows[0]
    assert wording.interval(unknown.summary, "final_val_accuracy") == "no spread"
    # A loss is no share of images.
    metrics = {"val_loss": 0.5}
    loss = compare(repeats(make_run, [97.9, 97.9], images={"validation": 143}, metrics=metrics), objective="val_loss")
    assert wording.interval(loss.rows[0].summary, "val_loss") == "no spread"


def test_a_loss_has_no_difference_worth_finding_unless_it_is_given(make_run: MakeRun) -> None:
    runs = [make_run(70, seed, metrics={"val_loss": 0.5 + seed / 100}) for seed in range(3)]
    assert compare(runs, objective="val_loss").difference is None
    assert "takes" not in said(compare(runs, objective="val_loss"))
    assert "Spread between seeds: standard deviation 0.01, 2 degrees" in said(compare(runs, objective="val_loss"))
    assert "To tell 0.01 apart" in said(compare(runs, objective="val_loss", difference=0.01))
    assert "To tell 0.5 points" in said(compare([make_run(70.0 + seed, seed) for seed in range(3)]))


def test_one_diverged_configuration_does_not_decide_how_many_seeds_are_advised(make_run: MakeRun) -> None:
    usual = [run for a in range(3) for run in repeats(make_run, [75.3, 76.0, 76.7], activation=a)]
    diverged = repeats(make_run, [76.0, 10.0, 75.0], activation="diverged")
    with_it, alone = compare([*usual, *diverged]).spread, compare(usual).spread
    assert with_it is not None
    assert alone is not None
    assert with_it.seeds_for_one_pair == alone.seeds_for_one_pair
    assert "without 1 configuration of far more" in said(compare([*usual, *diverged]))
