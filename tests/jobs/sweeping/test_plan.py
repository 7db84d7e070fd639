"""Which runs of a sweep go on, and what becomes of them."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from cifar_mlflow.config.sweep import load_spec, parse_spec
from cifar_mlflow.jobs.sweeping.plan import Plan, describe
from cifar_mlflow.records import RunRecord, TrialOutcome
from cifar_mlflow.tuning.study import TuningStudy

ROOT = Path(__file__).parents[3]


BASE = {"dataset": "digits", "epochs": 4}


def fingerprint(config):
    return config.run_fingerprint("data")


@pytest.fixture
def make(tmp_path):
    """A function that opens the plan of a sweep of three activations; again, with what its runs came to."""

    def opened(known=(), **changes):
        values = {"name": "s", "base": BASE, "space": {"activation": ["relu", "prelu", "elu"]}, **changes}
        spec = parse_spec(values, Path("/"))
        return Plan(spec, TuningStudy(spec, tmp_path / "journal.log"), fingerprint, known)

    return opened


@pytest.fixture
def plan(make):
    return make(pruner="successive_halving")


def rest(plan):
    """All runs that the plan hands out now."""
    return list(iter(plan.next, None))


def told(plan):
    """What the study knows of each trial: its state and the objective."""
    return [(trial.state.name, trial.value) for trial in plan._study._trials()]


def record(planned, status="FINISHED", value=70.0, **tags):
    """The run as the store has it."""
    tags = {"run_fingerprint": planned.fingerprint, **tags}
    metrics = {"final_val_accuracy": value, "epoch_test_accuracy": value - 1}
    return RunRecord("id", "name", status, planned.config.seed, metrics=metrics, tags=tags)


def test_every_configuration_is_handed_out_with_every_seed_once(make):
    plan = make(repeats=2)
    found = [(planned.config.activation, planned.config.seed) for planned in rest(plan)]
    assert found == [(name, seed) for name in ("relu", "prelu", "elu") for seed in (0, 1)]
    assert plan.handed_out == 6
    assert not plan.has_next()


def test_the_study_is_told_the_mean_of_the_repeats_once_all_have_ended(make):
    plan = make(repeats=2, space={"activation": ["relu"]})
    first, second = rest(plan)
    plan.finish(first, TrialOutcome("FINISHED", 70.0))
    assert told(plan) == [("RUNNING", None)]
    plan.finish(second, TrialOutcome("FINISHED", 80.0))
    assert told(plan) == [("COMPLETE", 75.0)]


@pytest.mark.parametrize("failed", [0, 1])
@pytest.mark.parametrize("outcome", [TrialOutcome("FAILED", reason="diverged"), TrialOutcome("FINISHED", math.inf)])
def test_a_configuration_that_fails_with_one_seed_is_told_as_a_failure(make, failed, outcome):
    plan = make(repeats=2, space={"activation": ["relu"]}, sampler="tpe", trials=1)
    for number, planned in enumerate(rest(plan)):
        plan.finish(planned, outcome if number == failed else TrialOutcome("FINISHED", 90.0))
    assert told(plan) == [("FAIL", None)]


def test_a_run_that_kills_its_worker_is_tried_twice_and_no_more(make):
    plan = make()
    first, second, *_ = rest(plan)
    assert plan.lost(first)
    assert plan.next() is first
    assert plan.handed_out == 3
    assert not plan.lost(first)
    assert plan.next() is None
    # The number of attempts is each run's own.
    assert plan.lost(second)


def test_two_trials_of_one_configuration_share_its_run(make):
    plan = make(space={"dropout": {"low": 0.1, "high": 0.2, "step": 0.1}}, sampler="random", trials=8)
    handed_out = rest(plan)
    assert sorted(planned.config.dropout for planned in handed_out) == [0.1, 0.2]
    for planned in handed_out:
        plan.finish(planned, TrialOutcome("FINISHED", 100 * planned.config.dropout))
    assert sorted(value for _, value in told(plan)) == sorted(
        100 * trial.params["dropout"] for trial in plan._study._trials()
    )
    assert len(told(plan)) == 8


def test_what_earlier_starts_came_to_is_not_trained_again(make):
    before = rest(make(repeats=2))
    known = [
        record(before[0], value=70.0),
        record(before[1], value=72.0),
        record(before[2], "FAILED", failure_type="Diverged", failure="too large"),
        record(before[3], "KILLED"),
        record(before[4], "FAILED", failure_type="OSError"),
        RunRecord("id", "before there were fingerprints", "FINISHED", 0),
    ]
    plan = make(known, repeats=2)
    assert [planned.fingerprint for planned in rest(plan)] == [before[n].fingerprint for n in (3, 4, 5)]
    assert [(values["activation"], outcome) for values, outcome in plan.known] == [
        ("relu", TrialOutcome("FINISHED", 70.0)),
        ("relu", TrialOutcome("FINISHED", 72.0)),
        ("prelu", TrialOutcome("FAILED", reason="too large")),
    ]
    assert told(plan)[0] == ("COMPLETE", 71.0)
    assert plan.handed_out == 6
    assert plan.recorded(before[5], [record(before[5], value=60.0)]) == TrialOutcome("FINISHED", 60.0)
    assert plan.recorded(before[5], known) is None


def test_repeats_that_are_added_are_trained_of_ended_trials_too(make):
    plan = make()
    before = rest(plan)
    for planned in before:
        plan.finish(planned, TrialOutcome("FINISHED", 70.0))
    plan = make(map(record, before), repeats=2)
    added = [(planned, planned.config.activation, planned.config.seed) for planned in rest(plan)]
    assert [rest for _, *rest in added] == [[planned.config.activation, 1] for planned in before]
    plan.finish(added[0][0], TrialOutcome("FINISHED", 50.0))
    assert told(plan) == [("COMPLETE", 70.0)] * 3, "what a trial came to is told once"


def test_a_pruned_configuration_has_no_other_seeds_and_one_that_goes_on_has(make):
    plan = make(repeats=3, pruner="successive_halving")
    firsts = rest(plan)
    assert [(planned.config.seed, planned.prunable) for planned in firsts] == [(0, True)] * 3
    plan.finish(firsts[0], TrialOutcome("PRUNED"))
    plan.finish(firsts[1], TrialOutcome("FINISHED", 70.0))
    assert [(planned.config.seed, planned.prunable) for planned in rest(plan)] == [(1, False), (2, False)]
    assert [state for state, _ in told(plan)] == ["PRUNED", "RUNNING", "RUNNING"]
    # Another start knows of the pruning by the run's tag.
    again = make([record(firsts[0], "KILLED", pruned="true")], repeats=3, pruner="successive_halving")
    assert firsts[0].fingerprint not in {planned.fingerprint for planned in rest(again)}


def test_a_replication_is_scored_on_the_test_set(make):
    base = {**BASE, "validation_size": 0}
    (planned, *_) = rest(make(base=base))
    plan = make([record(planned, value=70.0)], base=base)
    assert plan.outcomes == {planned.fingerprint: TrialOutcome("FINISHED", 69.0)}


def test_a_configuration_is_described_by_what_varies():
    assert describe({"milestones": [1, 2], "batch_norm": True}) == "milestones 1,2, batch_norm true"
    assert describe({}) == "the base configuration"


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


def test_the_other_seeds_of_what_was_pruned_are_not_left_to_train(make):
    plan = make(pruner="successive_halving", repeats=3)
    assert plan.runs == 9
    plan.finish(plan.next(), TrialOutcome("PRUNED"))
    assert plan.runs == 7


def test_a_configuration_is_known_to_the_study_by_the_seeds_that_did_not_choose_it(make, monkeypatch):
    told = []
    monkeypatch.setattr(TuningStudy, "tell", lambda self, number, value, pruned=False: told.append(value))
    plan = make(pruner="successive_halving", repeats=3, space={"activation": ["relu"]})
    for value in (99.0, 70.0, 72.0):
        plan.finish(plan.next(), TrialOutcome("FINISHED", value))
    assert told == [71.0]


def test_halving_trains_a_quarter_of_the_grids_epochs_at_most_and_ends_with_the_best(tmp_path):
    """The shipped sweep, on learning curves that are known: a quality of each configuration, and noise."""
    spec = load_spec(ROOT / "experiments" / "halving.yaml")
    study = TuningStudy(spec, tmp_path / "journal.log")
    plan = Plan(spec, study, fingerprint, [])
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
