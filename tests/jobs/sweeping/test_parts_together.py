"""Parts of a sweep, one after the other or side by side, come to the table of the undivided sweep, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter

import pytest
import yaml
from support import InlineExecutor, run_here, standing_in
from sweeps import BASE, comparable, trained_once

from cifar_mlflow.analysis import plots
from cifar_mlflow.config.sweep import load_spec
from cifar_mlflow.errors import Interrupted, TrackingError
from cifar_mlflow.jobs.sweeping import places, session, trial, worker
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.store import connect

ELSEWHERE = {"host": "n2", "boot_id": "of another machine", "machine_id": "another"}


SMALL = {"space": {"activation": ["relu", "elu"]}, "base": {"epochs": 1}}


def quickly(patch):
    """Trains in this process, and draws no figures."""
    patch.setattr(places, "ProcessExecutor", InlineExecutor)
    patch.setattr(plots, "_png", lambda figure: b"")
    patch.setattr(worker, "images_per_second", lambda spec: 1000.0)


@pytest.fixture
def inline(monkeypatch, cifar):
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def expected(tmp_path_factory, tiny, empty_store):
    """The table of the undivided sweep."""
    with standing_in(tmp_path_factory.mktemp("undivided")) as work, pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        shutil.copy(empty_store, work / "mlflow.db")
        spec = {"name": "tiny", **SMALL, "base": {"dataset": str(tiny), **BASE, **SMALL["base"]}, "repeats": 2}
        (work / "sweep.yaml").write_text(yaml.safe_dump({**spec, "log_models": False}))
        assert run_here("sweep", "sweep.yaml").code == 0
        (results,) = work.rglob("results.csv")
        return comparable(results)


@pytest.fixture
def run(inline, write_spec):
    """Runs `sweep SPEC WORDS`; returns what it printed, if it ended with the code."""
    spec = write_spec(**SMALL)

    def call(*words, code=0):
        outcome = run_here("sweep", spec, *words)
        assert outcome.code == code, outcome.output
        assert "Traceback" not in outcome.output
        return outcome

    return call


@pytest.fixture
def whole(expected, table, parent, children):
    """Asserts that the sweep is there as if one process had run it."""

    def check():
        assert table() == expected
        assert parent().info.status == "FINISHED"
        assert "winner_run" in parent().data.tags
        found = children()
        assert trained_once(found)
        assert {each.info.status for each in found} <= {"FINISHED", "KILLED"}
        assert sum(each.info.status == "FINISHED" for each in found) == 4
        assert {each.data.tags["mlflow.parentRunId"] for each in found} == {parent().info.run_id}

    return check


def test_the_part_that_ends_last_publishes(run, whole, parent, children):
    first = run("--part", "2/2")
    assert "sweep tiny: 2 configurations x 2 seeds = 4 runs; part 2/2: 2 runs; 2 to train" in first.stderr
    assert "lacking   2 runs of part 1/2\n" in first.stdout
    assert first.stdout.endswith("done: part 2/2, 2 runs, 0 failed\n")
    assert parent().info.status == "SCHEDULED"
    assert {each.data.tags["part"] for each in children()} == {"2/2"}
    last = run("--part", "1/2")
    assert "done: 4 runs, 0 failed, 0 pruned; winner activation " in last.stdout
    whole()


def test_a_part_that_is_done_trains_nothing_when_it_is_started_again(run, children):
    run("--part", "1/2")
    before = {each.info.run_id for each in children()}
    again = run("--part", "1/2")
    assert "nothing is left to train" in again.stderr
    assert {each.info.run_id for each in children()} == before


def test_a_part_is_taken_over_beside_the_own_one_or_alone(run, whole, children):
    run("--part", "3/4", "--take-over", 1)
    assert Counter(each.data.tags["part"] for each in children()) == {"1/4": 1, "3/4": 1}
    run("--take-over", 2)
    run("--take-over", 4)
    whole()


def test_what_parts_have_left_is_run_by_the_undivided_sweep(run, whole, parent):
    run("--part", "1/2")
    run()
    whole()
    assert not {name for name in parent().data.tags if name.startswith("part")}
    assert "nothing is left" in run("--part", "1/3").stderr  # a sweep that is done may be divided anew
    whole()


def test_another_number_of_parts_is_refused_by_name(run, runs):
    run("--part", "1/2")
    before = len(runs())
    refused = run("--part", "1/3", code=2)
    assert "--part: 3 parts are refused: the sweep tiny (run " in refused.stderr
    assert "was begun in 2; give --part I/2, or" in refused.stderr
    assert len(runs()) == before


def test_a_report_says_what_is_lacking_and_trains_nothing(run, runs):
    assert "there is no sweep 'tiny' in the experiment 'tiny'" in run("--report", code=6).stderr
    run("--part", "1/4")
    before = len(runs())
    told = run("--report", code=6).stderr
    assert "1 run of part 2/4, 1 run of part 3/4, 1 run of part 4/4 not done yet" in told
    assert len(runs()) == before
    assert "RUNNING" not in {each.info.status for each in runs()}


def test_a_report_publishes_what_the_last_part_could_not(run, whole, monkeypatch):
    run("--part", "1/2")
    with monkeypatch.context() as patch:
        patch.setattr(session.sweep_report, "publish", lambda *_: (_ for _ in ()).throw(Interrupted(15)))
        run("--part", "2/2", code=143)
    told = run("--report").stdout
    assert "winner activation " in told
    whole()


def test_an_interrupted_part_leaves_nothing_running_and_goes_on(run, whole, statuses, monkeypatch):
    original, calls = trial.record_training, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            arguments[3].epoch = lambda result: (_ for _ in ()).throw(Interrupted(15))
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "record_training", interrupted)
        assert "The same command goes on" in run("--part", "1/2", code=143).stderr
    assert Counter(statuses()) == {"FINISHED": 1, "KILLED": 2}
    run("--part", "1/2")
    run("--part", "2/2")
    whole()


def elsewhere(client, parent, number, **more):
    claim = {"key": "k", "ended": False, "renewed": time.time(), **processes.process_tags(), **ELSEWHERE, **more}
    client().set_tag(parent().info.run_id, f"part.{number}", json.dumps(claim))


def test_while_another_machine_runs_a_part_the_sweep_is_its_own(run, client, parent, children, whole):
    run("--part", "1/4")
    elsewhere(client, parent, 2)
    told = run("--part", "3/4").stdout
    assert "1 run of part 2/4 (process " in told
    assert " on n2), 1 run of part 4/4\n" in told
    assert (parent().info.status, parent().data.tags["host"]) == ("RUNNING", "n2")
    refused = run(code=4).stderr
    assert "is being run in parts: part 2/4 (process " in refused
    assert parent().info.status == "RUNNING"
    # That machine dies in the middle of a run; its part is taken up, and the run closed.
    tags = {**children()[0].data.tags, **ELSEWHERE, "part": "2/4"}
    left = client().create_run(parent().info.experiment_id, tags=tags)
    elsewhere(client, parent, 2, renewed=0)
    run("--part", "4/4", "--take-over", 2)
    assert client().get_run(left.info.run_id).info.status == "KILLED"
    whole()


def test_what_another_machine_runs_is_not_closed_by_who_is_refused(run, client, parent, children):
    run("--part", "1/4")
    tags = {**children()[0].data.tags, **ELSEWHERE, "part": "2/4"}
    theirs = client().create_run(parent().info.experiment_id, tags=tags).info.run_id
    elsewhere(client, parent, 2, **processes.process_tags())  # of a process that is alive
    run("--part", "2/4", code=4)
    assert client().get_run(theirs).info.status == "RUNNING"
    assert parent().info.status == "RUNNING"


def test_parts_without_a_network_are_delivered_and_reported_later(run, whole, runs, children, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing answers there
        told = run("--part", "1/2", "--offline").stdout
        assert "deliver   cifar-mlflow sync, and then cifar-mlflow sweep " in told
        run("--part", "2/2", "--offline")
        assert "nothing is left to train" in run("--part", "2/2", "--offline").stderr
    assert runs() == []
    assert run_here("sync").code == 0
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert "nothing is left to train" in run("--part", "1/2", "--offline").stderr
    run("--report")
    whole()
    assert {each.data.tags["part"] for each in children()} == {"1/2", "2/2"}


def broken_off(config, dataset, start, *_, **__):
    start()
    os._exit(9)


def test_a_run_that_broke_off_without_a_network_is_closed_and_repeated(run, whole, statuses):
    child = os.fork()
    if not child:
        trial.record_training = broken_off
        run("--part", "1/1", "--offline")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    run("--part", "1/1", "--offline")
    assert run_here("sync").code == 0
    run("--report")
    whole()
    assert Counter(statuses()) == {"FINISHED": 5, "KILLED": 1}


def test_delivered_runs_of_another_spec_are_left_alone(run, write_spec, children, whole):
    run_here("sweep", write_spec(**{**SMALL, "base": {"epochs": 2}}), "--part", "1/2", "--offline")
    write_spec(**SMALL)
    assert run_here("sync").code == 0
    told = run().stderr
    assert "2 runs that were recorded offline under the name tiny are of another spec, other data or another" in told
    assert sum(each.data.tags["sweep_id"] == "offline" for each in children()) == 2


def test_under_mlflow_run_each_part_has_a_job_and_the_parent_is_none_of_them(run, client, runs, monkeypatch):
    experiment = client().create_experiment("tiny")
    jobs = [client().create_run(experiment).info.run_id for _ in range(2)]
    for number, job in enumerate(jobs, 1):
        monkeypatch.setenv("MLFLOW_RUN_ID", job)
        run("--part", f"{number}/2")
    kinds = Counter(each.data.tags["kind"] for each in runs())
    assert kinds == {"job": 2, "sweep": 1, "trial": 4}


def test_two_machines_that_start_at_the_same_moment_make_one_parent(inline, write_spec, runs, statuses):
    checked = load_spec(write_spec(**SMALL))
    store = connect()
    # Both have looked for an earlier start, and found none.
    first, second = (session.SweepSession(checked, store, "tiny", Parts((number,), 2)) for number in (1, 2))
    first._begin(2)
    second._begin(2)
    assert [run.data.tags["kind"] for run in runs()] == ["sweep"]
    assert first._parent.run_id == second._parent.run_id
    for each in (first, second):
        each._runs.claims.take(print)
    with pytest.raises(TrackingError, match=r"is being run in parts: part 1/2 \(process \d+ on .*\), part 2/2"):
        session.SweepSession(checked, store, "tiny", None)._begin(None)
    for each in (first, second):
        each._leave("SCHEDULED")
    assert statuses() == ["SCHEDULED"]
