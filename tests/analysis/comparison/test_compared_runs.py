"""Which runs are a configuration, which rows and columns they have, and what cannot be compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from compared import MakeRun, kinds, repeats, said

from cifar_mlflow.analysis.comparison.verdicts import compare
from cifar_mlflow.errors import ConfigurationError


def test_configurations_are_all_parameters_but_seed_and_place(make_run: MakeRun) -> None:
    runs = [
        make_run(70 + seed, seed, parameters={"lr": lr, "epochs": 5, "seed": seed, "threads": seed, "device": device,
                                              "data_dir": str(seed), "milestones": milestones})
        for seed, device, milestones in [(0, "cpu", [1, 2]), (1, "cuda", (1, 2))]
        for lr in (0.1, 0.01)
    ]  # fmt: skip
    comparison = compare(runs)
    assert comparison.columns == ("lr",)
    assert comparison.common == {"epochs": 5, "milestones": [1, 2]}
    assert [row.summary.n for row in comparison.rows] == [2, 2]


def test_a_parameter_that_only_some_runs_have_is_a_difference(make_run: MakeRun) -> None:
    comparison = compare([make_run(parameters={"a": 1}), make_run(parameters={"a": 1, "b": None})])
    assert comparison.columns == ("b",)
    assert compare([make_run(parameters={"a": 1}), make_run(parameters={"a": True})]).columns == ("a",)


def test_row_summarizes_its_runs(make_run: MakeRun) -> None:
    runs = [make_run(70.0, 0, minutes=1.0), make_run(72.0, 1, minutes=3.0), make_run(71.0, 2, minutes=None)]
    (row,) = compare(runs).rows
    assert row.values == (70.0, 72.0, 71.0)
    assert (row.summary.mean, row.minutes) == (71.0, 2.0)
    assert (row.summary.low, row.summary.high) == pytest.approx((71 - 2.4841, 71 + 2.4841), abs=1e-3)


def test_replications_among_other_runs_are_set_apart(make_run: MakeRun) -> None:
    other = make_run(None, parameters={"validation_size": 0}, metrics={"epoch_test_accuracy": 77.0})
    comparison = compare([*repeats(make_run, [70.0, 70.2]), other])
    assert comparison.excluded == {"no validation split": (other,)}
    assert len(comparison.rows) == 1


def test_runs_without_a_result_are_counted_apart(make_run: MakeRun) -> None:
    apart = {
        "FAILED": make_run(75.0, status="FAILED"),
        "KILLED": make_run(75.0, status="KILLED"),
        "RUNNING": make_run(75.0, status="RUNNING"),
        "pruned": make_run(75.0, status="KILLED", tags={"pruned": "true"}),
        "parent of a sweep": make_run(None, kind="sweep"),
        "no final_val_accuracy": make_run(math.nan),
    }
    comparison = compare([*apart.values(), *repeats(make_run, [70.0, 70.2])])
    assert comparison.excluded == {name: (run,) for name, run in apart.items()}
    assert [row.values for row in comparison.rows] == [(70.0, 70.2)]
    for reason, run in apart.items():
        assert f"Not compared, {reason}: 1 run ({run.name})." in said(comparison)


def test_what_was_pruned_still_shows_which_parameters_were_tried(make_run: MakeRun) -> None:
    runs = [make_run(75.0, parameters={"activation": name, "lr": 0.002}) for name in ("relu", "prelu")]
    pruned = make_run(30.0, status="KILLED", tags={"pruned": "true"}, parameters={"activation": "relu", "lr": 0.05})
    assert compare([*runs, pruned]).columns == ("activation", "lr")
    assert compare(runs).columns == ("activation",)


def test_the_same_seed_twice_counts_once(make_run: MakeRun) -> None:
    first, again = make_run(70.0, 3), make_run(71.5, 3)
    other = make_run(72.0, 4)
    (row,) = (comparison := compare([again, other, first])).rows
    assert row.summary.n == 2
    assert row.runs == (first, other)
    assert row.repeats == {3: (again,)}
    assert "was run 2 times (the results differ by up to 1.50): counted once" in said(comparison)
    identical = compare([first, make_run(70.0, 3)])
    assert kinds(identical) == ["one run"]
    assert "agree to the last digit" in said(identical)


def test_test_accuracy_only_when_asked_for(make_run: MakeRun) -> None:
    runs = [
        make_run(70.0 + seed, seed, metrics={"test_accuracy": 69.0 + seed}, tags={"test_evaluations": "2"})
        for seed in (0, 1)
    ]
    runs.append(make_run(None, 5, status="FAILED", tags={"test_evaluations": "1"}))
    silent = compare(runs)
    assert silent.rows[0].test is None
    assert silent.test_evaluations is None
    shown = compare(runs, with_test=True)
    assert shown.rows[0].test is not None
    assert shown.rows[0].test.mean == 69.5
    assert "consulted 5 times" in said(shown)


def test_reported_results_stand_beside_ours(make_run: MakeRun) -> None:
    runs = [make_run(parameters={"dropout": dropout, "optimizer": "adam"}) for dropout in (0.3, 0.35)]
    comparison = compare(
        runs,
        reported=[
            {"dropout": 0.30, "accuracy": [76.051]},
            {"dropout": 0.3, "optimizer": "adam", "accuracy": 76.5},
            {"dropout": 0.4, "accuracy": [75.681]},
            {"gamma": 0.1, "accuracy": [76.642]},
        ],
    )
    assert {row.parameters["dropout"]: row.reported for row in comparison.rows} == {0.3: (76.051, 76.5), 0.35: ()}
    assert [entry.parameters for entry in comparison.unmatched] == [{"dropout": 0.4}, {"gamma": 0.1}]
    assert "Reported, with no run here: dropout 0.4: 75.68." in said(comparison)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "test_accuracy"}, "test set"),
        ({"objective": "epoch_test_accuracy"}, "test set"),
        ({"objective": "best_test_accuracy"}, "test set"),
        ({"objective": "final_test_accuracy"}, "test set"),
        ({"objective": "final_val_acuracy"}, "they have: final_val_accuracy"),
        ({"difference": 0}, "positive"),
        ({"reported": [{"dropout": 0.3}]}, "accuracy"),
        ({"reported": [{"dropout": 0.3, "accuracy": ["76"]}]}, "accuracy"),
    ],
)
def test_what_cannot_be_compared_is_refused(make_run: MakeRun, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compare([make_run()], **options)


def test_no_runs_are_refused_but_failed_ones_are_listed(make_run: MakeRun) -> None:
    with pytest.raises(ConfigurationError, match="no runs"):
        compare([])
    failed = compare([make_run(None, status="FAILED")])
    assert failed.rows == ()
    assert list(failed.excluded) == ["FAILED"]


def test_order_of_the_runs_does_not_matter(make_run: MakeRun) -> None:
    runs = [run for a in range(5) for run in repeats(make_run, [70.0, 71.0, 72.0], activation=a)]
    shuffled = [runs[place] for place in np.random.default_rng(0).permutation(len(runs))]
    assert compare(runs).rows == compare(shuffled).rows
