"""What each sampler draws by: chance alone, or what was told before; and where the journal lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.tuning.study import TuningStudy

SPACE = {"learning_rate": {"low": 1e-4, "high": 0.1}, "dropout": {"low": 0.0, "high": 0.5}}


def spec(**changes):
    values = {
        "name": "study",
        "base": {"dataset": "digits", "epochs": 9},
        "space": SPACE,
        "sampler": "random",
        "trials": 24,
    }
    return parse_spec(values | changes, Path("/"))


def drawn(study, value):
    """The dropouts that are drawn if each is told at once."""
    found = []
    while suggestion := study.suggest():
        found.append(suggestion.values["dropout"])
        study.tell(suggestion.number, value(suggestion.values["dropout"]))
    return found


@pytest.mark.parametrize(("sampler", "by_chance"), [("random", True), ("tpe", False)])
def test_tpe_draws_by_what_was_told_and_random_does_not(tmp_path, sampler, by_chance):
    low, high = (
        drawn(TuningStudy(spec(sampler=sampler), tmp_path / str(sign)), lambda dropout, sign=sign: sign * dropout)
        for sign in (-1, 1)
    )
    assert low[:10] == high[:10], "the first ten are drawn by chance in any case"
    assert (low == high) is by_chance
    if not by_chance:
        assert sum(low[10:]) < sum(high[10:]), "near what was the best"


@pytest.mark.parametrize(("objective", "lowest"), [("val_loss", True), ("final_val_accuracy", False)])
def test_tpe_looks_for_a_low_loss_and_a_high_accuracy(tmp_path, objective, lowest):
    found = drawn(TuningStudy(spec(sampler="tpe", objective=objective), tmp_path / "journal"), lambda dropout: dropout)
    assert (sum(found[10:]) / len(found[10:]) < 0.25) is lowest


def test_trials_that_run_at_the_same_time_do_not_all_look_at_the_same_spot(tmp_path):
    """A running trial is taken for a bad one, so that the next one looks elsewhere."""

    def width(told):
        study = TuningStudy(spec(sampler="tpe", trials=40), tmp_path / str(told))
        for _ in range(16):
            suggestion = study.suggest()
            study.tell(suggestion.number, -abs(suggestion.values["dropout"] - 0.25))
        found = []
        for _ in range(16):
            suggestion = study.suggest()
            found.append(suggestion.values["dropout"])
            if told:
                study.tell(suggestion.number, -abs(found[-1] - 0.25))
        return sum(abs(dropout - 0.25) for dropout in found)

    assert width(told=False) > width(told=True)


def test_the_directory_of_a_journal_is_made(tmp_path):
    study = TuningStudy(spec(), tmp_path / "new" / "place" / "journal.log")
    assert study.suggest().number == 0
    assert (tmp_path / "new" / "place" / "journal.log").exists()


def test_a_whole_journal_stays_as_it_is(tmp_path):
    journal = tmp_path / "journal.log"
    study = TuningStudy(spec(), journal)
    study.suggest()
    before = journal.read_bytes()
    again = TuningStudy(spec(), journal)
    assert journal.read_bytes()[: len(before)] == before
    assert again.suggest().number == 0
