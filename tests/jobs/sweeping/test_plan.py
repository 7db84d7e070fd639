"""Which runs of a sweep go on, and what becomes of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cifar_mlflow.config.sweep import load_spec, parse_spec
from cifar_mlflow.jobs.sweeping.plan import Plan
from cifar_mlflow.records import TrialOutcome
from cifar_mlflow.tuning.study import TuningStudy

ROOT = Path(__file__).parents[3]


@pytest.fixture
def make_plan(tmp_path):
    def make(**changes):
        values = {
            "name": "halving",
            "base": {"dataset": "digits", "epochs": 4},
            "space": {"activation": ["relu", "prelu", "elu"]},
            "pruner": "successive_halving",
            **changes,
        }
        spec = parse_spec(values, Path("/"))
        study = TuningStudy(spec, tmp_path / "journal.log")
        return Plan(spec, study, lambda config: config.run_fingerprint("data"), [])

    return make


@pytest.fixture
def plan(make_plan):
    return make_plan()


def test_a_run_that_others_outdo_is_ended_early_but_not_after_its_last_epoch(plan):
    first = plan.next()
    assert [plan.report(first, epoch, 90.0) for epoch in (1, 2, 3, 4)] == [True] * 4
    plan.finish(first, TrialOutcome("FINISHED", 90.0))
    worse = plan.next()
    assert not plan.report(worse, 1, 10.0)
    plan.finish(worse, TrialOutcome("PRUNED"))
    # After four epochs is a decision as well; but there is nothing left to save, and a result to lose.
    late = plan.next()
    assert [plan.report(late, epoch, value) for epoch, value in ((1, 95.0), (4, 10.0))] == [True] * 2


def test_the_other_seeds_of_what_was_pruned_are_not_left_to_train(make_plan):
    plan = make_plan(repeats=3)
    assert plan.runs == 9
    plan.finish(plan.next(), TrialOutcome("PRUNED"))
    assert plan.runs == 7


def test_a_configuration_is_known_to_the_study_by_the_seeds_that_did_not_choose_it(make_plan, monkeypatch):
    told = []
    monkeypatch.setattr(TuningStudy, "tell", lambda self, number, value, pruned=False: told.append(value))
    plan = make_plan(repeats=3, space={"activation": ["relu"]})
    for value in (99.0, 70.0, 72.0):
        plan.finish(plan.next(), TrialOutcome("FINISHED", value))
    assert told == [71.0]


def test_halving_trains_a_quarter_of_the_grids_epochs_at_most_and_ends_with_the_best(tmp_path):
    """The shipped sweep, on learning curves that are known: a quality of each configuration, and noise."""
    spec = load_spec(ROOT / "experiments" / "halving.yaml")
    study = TuningStudy(spec, tmp_path / "journal.log")
    plan = Plan(spec, study, lambda config: config.run_fingerprint("data"), [])
    chance = random.Random(0)
    quality = {str(values): chance.gauss(0, 1) for values in spec.grid()}
    epochs, running, finished = 0, [], {}
    while True:
        while len(running) < spec.workers and (planned := plan.next()):
            running.append((planned, iter(range(1, planned.config.epochs + 1))))
        if not running:
            break
        planned, coming = chance.choice(running)
        epoch, name = next(coming), str(planned.trial.values)
        epochs += 1
        value = quality[name] + chance.gauss(0, 0.5 / epoch**0.5)
        goes_on = plan.report(planned, epoch, value)
        if not goes_on or epoch == planned.config.epochs:
            running = [each for each in running if each[0] is not planned]
            plan.finish(planned, TrialOutcome("FINISHED", value) if goes_on else TrialOutcome("PRUNED"))
            finished |= {name: value} if goes_on else {}
    assert epochs <= 0.25 * spec.configurations * spec.base_config.epochs
    assert max(finished, key=finished.get) == max(quality, key=quality.get)
