"""Which combination comes next: the same whenever, and however often, the sweep is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.tuning.study import TuningStudy

RANGES = {
    "learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
    "batch_size": {"low": 16, "high": 64, "step": 16},
    "scheduler": ["none", "step"],
    "step_size": {"low": 1, "high": 5, "when": {"scheduler": "step"}},
}
GRID = {"activation": ["relu", "prelu"], "scheduler": ["none", "step"]}
GRID["step_size"] = {"values": [1, 2], "when": {"scheduler": "step"}}


def spec(**changes):
    values = {"name": "study", "base": {"dataset": "digits", "epochs": 9}, "space": RANGES, "sampler": "random"}
    values |= {"trials": 8} | changes
    if values["sampler"] == "grid":
        del values["trials"]
    return parse_spec(values, Path("/"))


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "state" / "journal.log"


def all_of(study, value=lambda suggestion: float(suggestion.number % 3)):
    found = []
    while suggestion := study.suggest():
        found.append(suggestion)
        study.tell(suggestion.number, value(suggestion))
    return found


def test_a_grid_is_every_combination_in_order_with_the_numbers_of_its_trials(journal):
    found = all_of(TuningStudy(spec(sampler="grid", space=GRID), journal))
    assert [suggestion.number for suggestion in found] == list(range(6))
    assert [tuple(suggestion.values.values()) for suggestion in found] == [
        (activation, *rest) for activation in ("relu", "prelu") for rest in (("none",), ("step", 1), ("step", 2))
    ]


def test_a_grid_that_is_pruned_is_every_combination_in_a_mixed_order_of_its_own(journal, tmp_path):
    space = {"activation": ["relu", "prelu", "elu"], "batch_size": [16, 32, 64]}
    halving = spec(sampler="grid", space=space, pruner="successive_halving")
    plain = [suggestion.values for suggestion in all_of(TuningStudy(spec(sampler="grid", space=space), journal))]
    mixed = [suggestion.values for suggestion in all_of(TuningStudy(halving, tmp_path / "mixed"))]
    assert mixed != plain
    assert sorted(map(str, mixed)) == sorted(map(str, plain))
    assert mixed == [suggestion.values for suggestion in all_of(TuningStudy(halving, tmp_path / "again"))]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_draws_are_within_the_space_and_the_same_in_another_study(journal, tmp_path, sampler):
    first = all_of(TuningStudy(spec(sampler=sampler, trials=14), journal))
    second = all_of(TuningStudy(spec(sampler=sampler, trials=14), tmp_path / "other"))
    assert first == second
    assert len({suggestion.values["learning_rate"] for suggestion in first}) == 14
    for suggestion in first:
        assert 1e-4 <= suggestion.values["learning_rate"] <= 0.1
        assert suggestion.values["batch_size"] in (16, 32, 48, 64)
        assert ("step_size" in suggestion.values) == (suggestion.values["scheduler"] == "step")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_draws_reach_both_ends_of_a_range_in_steps(journal, sampler):
    space = {"dropout": {"low": 0.1, "high": 0.3, "step": 0.1}, "batch_size": {"low": 8, "high": 24, "step": 8}}
    found = all_of(TuningStudy(spec(sampler=sampler, trials=25, space=space), journal))
    assert {suggestion.values["dropout"] for suggestion in found} == {0.1, 0.2, 0.3}
    assert {suggestion.values["batch_size"] for suggestion in found} == {8, 16, 24}


def test_another_seed_draws_otherwise(journal, tmp_path):
    first = all_of(TuningStudy(spec(), journal))
    second = all_of(TuningStudy(spec(base={"dataset": "digits", "seed": 5}), tmp_path / "other"))
    assert first != second


@pytest.mark.parametrize("changes", [{}, {"sampler": "tpe"}, {"sampler": "grid", "space": GRID}])
def test_a_study_that_was_broken_off_goes_on_as_if_it_had_not_been(journal, tmp_path, changes):
    whole = TuningStudy(spec(**changes), tmp_path / "whole")
    # Two at a time, as two workers would.
    expected = [whole.suggest(), whole.suggest()]
    whole.tell(0, 1.0)
    expected += all_of(whole)
    broken = TuningStudy(spec(**changes), journal)
    assert [broken.suggest(), broken.suggest()] == expected[:2]
    broken.tell(0, 1.0)
    resumed = TuningStudy(spec(**changes), journal)
    assert resumed.suggest() == expected[1], "what was not told of is handed out again"
    assert all_of(resumed) == expected[2:]
    assert [suggestion.number for suggestion in resumed.told()] == [0, *range(2, len(expected))]


@pytest.mark.parametrize("cut", range(1, 200, 13))
def test_a_journal_cut_short_anywhere_can_be_opened_and_written_to(journal, cut):
    first = all_of(TuningStudy(spec(trials=4), journal))
    journal.write_bytes(journal.read_bytes()[:-cut])
    journal.with_name(journal.name + ".lock").symlink_to(journal)  # left by the process that was killed
    again = TuningStudy(spec(trials=4), journal)
    all_of(again)
    assert [suggestion.values for suggestion in TuningStudy(spec(trials=4), journal).told()] == [
        suggestion.values for suggestion in first
    ]


def test_values_that_are_added_come_after_those_that_were_tried(journal):
    small, large = {"activation": ["relu", "elu"]}, {"activation": ["gelu", "relu", "elu"]}
    study = TuningStudy(spec(sampler="grid", space=small), journal)
    study.tell(study.suggest().number, 1.0)
    assert study.suggest().values == {"activation": "elu"}
    found = all_of(TuningStudy(spec(sampler="grid", space=large), journal))
    assert [(suggestion.number, suggestion.values["activation"]) for suggestion in found] == [(1, "elu"), (2, "gelu")]


def test_more_trials_go_on_where_the_fewer_ended(journal, tmp_path):
    all_of(TuningStudy(spec(trials=3), journal))
    added = all_of(TuningStudy(spec(trials=5), journal))
    assert added == all_of(TuningStudy(spec(trials=5), tmp_path / "at once"))[3:]


def test_the_pruner_stops_what_others_outdo_and_never_the_best(journal):
    study = TuningStudy(spec(trials=9, pruner="successive_halving"), journal)
    verdicts = []
    for value in range(9):
        number = study.suggest().number
        # The later trials are worse.
        verdicts.append(study.report(number, 1, 90.0 - value))
        study.tell(number, None, pruned=not verdicts[-1]) if not verdicts[-1] else study.tell(number, 90.0 - value)
    assert verdicts[0]
    assert not any(verdicts[3:])


def test_the_pruner_leaves_the_first_epochs_alone(journal):
    study = TuningStudy(spec(trials=4, pruner="successive_halving", min_epochs=2), journal)
    verdicts = []
    for value in range(4):
        number = study.suggest().number
        verdicts.append([study.report(number, epoch, 90.0 - value) for epoch in (1, 2)])
        study.tell(number, None, pruned=not all(verdicts[-1]))
    assert verdicts == [[True, True], *[[True, False]] * 3]


def test_lower_is_better_for_a_loss(journal):
    study = TuningStudy(spec(trials=9, pruner="successive_halving", objective="val_loss"), journal)
    verdicts = []
    for value in range(9):
        number = study.suggest().number
        verdicts.append(study.report(number, 1, 1.0 - value / 10))
        study.tell(number, None, pruned=not verdicts[-1]) if not verdicts[-1] else study.tell(number, 1.0)
    assert verdicts[-1], "the lowest loss so far goes on"


def test_importances_say_what_the_objective_depends_on(journal):
    space = {"activation": ["relu", "elu"], "dropout": {"low": 0.0, "high": 0.5}}
    study = TuningStudy(spec(trials=30, space=space), journal)
    assert study.importances() == {}
    all_of(study, lambda suggestion: 10 * suggestion.values["dropout"])
    shares = study.importances()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["dropout"] > 0.8


@pytest.mark.parametrize(
    ("values", "known"), [([1.0, 2.0, 3.0], False), ([1.0] * 4, False), ([1.0, 2.0, 3.0, 4.0], True)]
)
def test_importances_need_four_trials_that_differ(journal, values, known):
    space = {"activation": ["relu", "elu"], "dropout": {"low": 0.0, "high": 0.5}}
    study = TuningStudy(spec(trials=len(values), space=space), journal)
    all_of(study, lambda suggestion: values[suggestion.number])
    assert bool(study.importances()) is known


def test_a_trial_is_told_of_once(journal):
    study = TuningStudy(spec(trials=2), journal)
    number = study.suggest().number
    study.tell(number, 1.0)
    study.tell(number, 2.0)
    study.tell(number, None)
    assert [trial.value for trial in study._trials("COMPLETE")] == [1.0]


def test_by_halving_the_best_quarter_of_the_runs_so_far_goes_on(journal):
    study = TuningStudy(spec(trials=9, pruner="successive_halving"), journal)
    going_on = [study.report(study.suggest().number, 1, value) for value in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)]
    assert all(going_on), "each was the best"
    assert study.report(study.suggest().number, 1, 6.5), "the second best of eight"
    assert not study.report(study.suggest().number, 1, 6.2), "the third best of nine"


def test_a_range_of_whole_numbers_without_a_step_is_drawn_one_by_one(journal):
    found = all_of(TuningStudy(spec(trials=30, space={"step_size": {"low": 1, "high": 4}}), journal))
    assert {suggestion.values["step_size"] for suggestion in found} == {1, 2, 3, 4}


def test_values_may_be_added_to_a_sweep_again_and_again(journal):
    for activations in (["relu"], ["relu", "elu"], ["relu", "elu", "gelu"]):
        study = TuningStudy(spec(sampler="grid", space={"activation": activations}), journal)
        assert [suggestion.values["activation"] for suggestion in all_of(study)] == activations[-1:]
    assert len(study.told()) == 3
