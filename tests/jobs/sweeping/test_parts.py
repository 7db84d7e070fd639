"""Which run is in which part: told by the spec alone, whatever was done before; and what cannot be divided."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.projects import utils as project_utils

from cifar_mlflow.cli import cli
from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.sweeping import parts
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.jobs.sweeping.plan import Plan
from cifar_mlflow.records import RunRecord
from cifar_mlflow.tuning.study import TuningStudy

ROOT = Path(__file__).parents[3]
CHOICE = {"activation": {"kind": "choice", "values": ["relu", "elu", "gelu"]}}
RANGE = {"learning_rate": {"kind": "number", "low": 0.001, "high": 0.1, "log": True}}


def spec_of(sampler="grid", **changes):
    base = {"name": "s", "base": {"dataset": "digits"}, "sampler": sampler, "space": CHOICE, "repeats": 2}
    return SweepConfig.model_validate(base | changes)


def fingerprint(config):
    return config.run_fingerprint("data")


def finished(planned):
    tags = {"run_fingerprint": planned.fingerprint}
    return RunRecord("r", "n", "FINISHED", 0, metrics={"final_val_accuracy": 50.0}, tags=tags)


def plan_of(spec, mine, known=()):
    return Plan(spec, TuningStudy(spec, None), fingerprint, known, mine)


def all_of(plan):
    return list(iter(plan.next, None))


def whole(spec, journal):
    """The runs as an undivided sweep hands them out: fingerprint, trial and values."""
    plan = Plan(spec, TuningStudy(spec, journal), fingerprint, [])
    return [(each.fingerprint, each.trial) for each in all_of(plan)]


SPECS = {
    "a grid": spec_of(),
    "random draws": spec_of("random", space=CHOICE | RANGE, trials=5),
    "random draws that repeat each other": spec_of("random", trials=9),
}


@pytest.mark.parametrize("of", [1, 2, 4])
@pytest.mark.parametrize("name", SPECS)
def test_the_parts_are_the_whole_sweep_and_no_run_is_in_two(tmp_path, name, of):
    spec = SPECS[name]
    expected = whole(spec, tmp_path / "journal.log")
    dealt = [[(run.fingerprint, run.trial) for run in all_of(plan_of(spec, Parts((i,), of)))] for i in range(1, of + 1)]
    together = [run for part in dealt for run in part]
    assert sorted(together, key=lambda run: run[0]) == sorted(expected, key=lambda run: run[0])
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(list(SPECS)), st.sets(st.integers(0, 9)), st.integers(1, 4))
def test_a_run_stays_in_its_part_whatever_was_done_before(name, done, of):
    spec = SPECS[name]
    runs = all_of(plan_of(spec, Parts((1,), 1)))
    known = [finished(run) for number, run in enumerate(runs) if number in done]
    for number in range(1, of + 1):
        before = all_of(plan_of(spec, Parts((number,), of)))
        after = all_of(plan_of(spec, Parts((number,), of), known))
        left = {run.fingerprint for run in before} - {record.tags["run_fingerprint"] for record in known}
        assert [run.fingerprint for run in after] == [run.fingerprint for run in before if run.fingerprint in left]


def test_an_added_seed_moves_no_finished_run_back_to_the_start():
    spec, grown = spec_of(), spec_of(repeats=3)
    known = [finished(run) for run in all_of(plan_of(spec, Parts((1,), 1)))]
    left = [run for number in (1, 2) for run in all_of(plan_of(grown, Parts((number,), 2), known))]
    assert [run.config.seed for run in left] == [2, 2, 2]


def test_a_part_counts_its_own_runs():
    spec = spec_of()
    known = [finished(run) for run in all_of(plan_of(spec, Parts((1,), 1)))[:3]]
    plan = plan_of(spec, Parts((1, 3), 4), known)
    assert (plan.runs, len(plan.own_outcomes), len(plan.fingerprints)) == (3, 2, 6)
    assert [plan.part_of(run) for run in all_of(plan)] == ["1/4"]


@pytest.mark.parametrize("word", ["", "1", "0/4", "5/4", "1/0", "1/1001", "1/4/2", "a/b", "-1/4", "1 / 4", "¹/4"])
def test_a_word_that_is_no_part_is_refused(word):
    with pytest.raises(ConfigurationError, match=r"--part: .* is refused: must be I/N, such as 1/4"):
        parts.parse(word, [], None, "quick")


def test_parts_are_run_once_each_in_the_order_of_the_command():
    assert parts.parse("3/4", [1, 3, 1], None, "quick") == Parts((3, 1), 4)
    assert parts.parse(None, [2], 4, "quick") == Parts((2,), 4)
    assert str(Parts((3, 1), 4)) == "parts 3/4, 1/4"


def test_a_part_that_is_taken_over_has_to_be_one():
    with pytest.raises(ConfigurationError, match="--take-over: 5 is refused: the parts are 1 to 4"):
        parts.parse("1/4", [5], None, "quick")
    with pytest.raises(ConfigurationError, match="no part of a sweep quick was ever begun here"):
        parts.parse(None, [1], None, "quick")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "tpe", "trials": 3}, "tpe chooses each trial by the results of all before; use sampler: grid or"),
        ({"pruner": "successive_halving"}, "successive_halving holds each run against those of all parts; use sampler"),
        ({"budget": {"runs": 3}}, "budget: runs is of the whole sweep.*give minutes"),
        ({"repeats": 1}, "--part: 4 parts are refused: the sweep has 3 runs"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_the_remedy(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        parts.refuse_indivisible(spec_of(**changes), Parts((1,), 4))


def test_a_report_needs_to_know_which_runs_there_are():
    parts.refuse_indivisible(spec_of(budget={"runs": 3}), None)
    with pytest.raises(ConfigurationError, match="--report: sampler: tpe"):
        parts.refuse_indivisible(spec_of("tpe", trials=3), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "1/4", "report": True}, "--part: --report trains nothing"),
        ({"take_over": [1], "report": True}, "--take-over: --report trains nothing"),
        ({"offline": True, "report": True}, "--offline: --report trains nothing"),
        ({"offline": True}, "--offline: only a part can be run without the store; give --part I/N, or 1/1 for all"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        parts.refuse_together(**{"part": None, "take_over": (), "report": False, "offline": False} | options)


def test_no_part_is_offline_in_a_run_that_mlflow_has_made(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(ConfigurationError, match="`mlflow run` has made a run on the tracking store already"):
        parts.refuse_together("1/2", (), report=False, offline=True)


def test_a_part_is_a_parameter_of_the_entry_point(tmp_path):
    (tmp_path / "s.yaml").touch()
    entry = project_utils.load_project(str(ROOT)).get_entry_point("sweep")
    command = entry.compute_command({"spec": str(tmp_path / "s.yaml"), "part": "1/4", "take_over": "2"}, None)
    context = cli.make_context("cifar-mlflow", [], resilient_parsing=True)
    name, sweep, words = cli.resolve_command(context, command.split()[3:])  # without python -m cifar_mlflow
    context = sweep.make_context(name, words, context)
    assert (context.params["part"], context.params["take_over"]) == ("1/4", (2,))
