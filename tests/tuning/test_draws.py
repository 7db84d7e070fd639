"""What is drawn: the same by every version, and with regard to the trials that run at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.tuning.study import TuningStudy

SPACE = {"learning_rate": {"low": 1e-4, "high": 0.1}, "dropout": {"low": 0.0, "high": 0.5}}


def study(**changes) -> TuningStudy:
    values = {"name": "study", "base": {"dataset": "digits", "epochs": 9}, "space": SPACE}
    return TuningStudy(parse_spec(values | changes, Path("/")), None)


def test_a_sweep_that_another_version_goes_on_with_draws_what_this_one_would_have_drawn():
    space = SPACE | {"batch_size": {"low": 8, "high": 64, "step": 8}, "optimizer": ["sgd", "adam", "adamw"]}
    begun = study(space=space, sampler="random", trials=3)
    drawn = [list(begun.suggest().values.values()) for _ in range(3)]
    assert [values[:2] for values in drawn] == [
        pytest.approx([0.0248099799945, 0.417363413423]),
        pytest.approx([0.0316370943923, 0.409715230430]),
        pytest.approx([0.0973486062536, 0.482018701493]),
    ]
    assert [values[2:] for values in drawn] == [[24, "sgd"], [48, "sgd"], [24, "adam"]]


@pytest.mark.parametrize(("sampler", "regards"), [("tpe", True), ("random", False)])
def test_trials_that_run_are_regarded_and_those_that_failed_are_not(sampler, regards):
    def after(failed):
        begun = study(sampler=sampler, trials=40)
        for _ in range(16):
            suggestion = begun.suggest()
            begun.tell(suggestion.number, -abs(suggestion.values["dropout"] - 0.25))
        for running in [begun.suggest() for _ in range(8)]:
            if failed:
                begun.tell(running.number, None)
        return [begun.suggest() for _ in range(4)]

    assert (after(failed=True) != after(failed=False)) is regards


def test_a_grid_of_a_range_in_steps_has_its_values_to_the_last_digit():
    begun = study(space={"dropout": {"low": 0.1, "high": 0.3, "step": 0.1}, "batch_size": [8, 16]}, sampler="grid")
    found = [begun.suggest().values for _ in range(6)]
    assert [tuple(values.values()) for values in found] == [
        (dropout, size) for dropout in (0.1, 0.2, 0.3) for size in (8, 16)
    ]
    assert begun.suggest() is None


@pytest.mark.parametrize("trials", [1, 3])
def test_as_many_are_drawn_as_are_asked_for(trials):
    begun = study(sampler="random", trials=trials)
    assert [suggestion and suggestion.number for suggestion in (begun.suggest() for _ in range(trials + 1))] == [
        *range(trials), None,
    ]  # fmt: skip
