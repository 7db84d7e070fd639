"""Trainings that share a machine: what the second is told, and how it waits for its turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import psutil
import pytest
import yaml

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import load_spec
from cifar_mlflow.directories import state_directory
from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.sweeping import trial
from cifar_mlflow.jobs.training import neighbours
from cifar_mlflow.jobs.training.neighbours import Neighbour, Neighbours, Place, in_the_way, place_of
from cifar_mlflow.jobs.training.progress import TrainingProgress
from cifar_mlflow.tracking.processes import process_tags

TWO = Place("cores", 2, 2)
SHORT = ("--threads", "2", "--epochs", "1", "--batch-size", "96")  # two threads wait long for a core that others use


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(neighbours, "cores", lambda: 2)


@pytest.fixture
def calm(monkeypatch):
    """Other programs leave the cores alone."""
    monkeypatch.setattr(neighbours._Load, "others", lambda self: 0.0)


@contextmanager
def training(what="other-seed0", place=TWO):
    """A training of that name has its place."""
    with Neighbours().turn(what, place):
        yield


def living():
    return neighbours._living(state_directory() / neighbours.PART)


class Clock:
    """The module `time`, in part another one, for one module alone."""

    def __init__(self, **functions):
        vars(self).update(functions)

    def __getattr__(self, name):
        return getattr(time, name)


@pytest.fixture
def sleeping(monkeypatch):
    """Sets what happens when a job that waits sleeps."""
    return lambda happens: monkeypatch.setattr(neighbours, "time", Clock(sleep=lambda seconds: happens()))


def interrupt():
    raise Interrupted(signal.SIGINT)


def record(number, needs=2, waits=False, place="cores", **process):
    return Neighbour(number, f"number {number}", place, needs, waits, 0.0, {**process_tags(), **process})


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], []),
        ([record(1)], [1]),
        ([record(1, needs=1)], []),  # there is room beside it
        ([record(1, needs=1), record(2, needs=1)], [1, 2]),
        ([record(1, waits=True), record(2)], [2, 1]),  # those who train, train first
        ([record(9, waits=True)], []),  # it came later, and waits
        ([record(9)], [9]),  # it came later, and trains
        ([record(1, place="GPU (cuda)")], []),
        ([record(1, host="another machine", boot_id="its own", machine_id="its own")], []),
    ],
)
def test_who_is_in_the_way(others, expected):
    mine = record(5, needs=1 if [each.needs for each in others][:1] == [1] else 2, waits=True)
    assert [each.number for each in in_the_way(mine, [mine, *others], 2)] == expected


def test_one_that_needs_more_than_there_is_begins_when_it_is_alone():
    assert in_the_way(record(5, needs=8), [record(5, needs=8)], 2) == []


def test_a_training_that_finds_the_cores_taken_says_what_to_do(cifar, tiny_training, calm):
    with training(), training("another-seed1"):
        told = cifar("train", *tiny_training, *SHORT).stderr.splitlines()
    (line,) = [line for line in told if "taken" in line]
    assert line.startswith(f"warning: the 2 cores are taken by other-seed0 (process {os.getpid()} on ")
    assert line.endswith(
        " and 1 more. Trainings that share them take several times as long: give each training --threads 1, or start "
        "this one with --wait, which waits for its turn"
    )


def test_trainings_that_have_room_beside_each_other_are_told_nothing(cifar, tiny_training, calm):
    with training(place=Place("cores", 1, 2)):
        outcome = cifar("train", *tiny_training, "--threads", "1", "--wait")
    assert outcome.code == 0
    assert "cores" not in outcome.stderr
    assert living() == []


def test_who_waits_makes_no_run_before_its_turn(cifar, tiny_training, calm, sleeping, runs):
    with ExitStack() as other:
        other.enter_context(training())
        seen = []

        def the_other_ends():
            seen.append((len(runs()), [(each.waits, each.what) for each in living()]))
            other.close()

        sleeping(the_other_ends)
        outcome = cifar("train", *tiny_training, *SHORT, "--wait")
    assert seen == [(0, [(False, "other-seed0"), (True, "tiny-prelu-adam-seed0")])]
    told = [line for line in outcome.stderr.splitlines() if "turn" in line or "waiting" in line]
    assert told[0].startswith(f"waiting for the 2 cores: first comes other-seed0 (process {os.getpid()} on ")
    assert told[1].startswith("its turn has come after ")
    assert (outcome.code, len(told), living()) == (0, 2, [])
    assert [run.info.status for run in runs()] == ["FINISHED"]


@pytest.fixture
def interrupted(cifar, tiny_training, monkeypatch, runs):
    """The id of a run that was interrupted after its second epoch."""

    def stop(self, result):
        if result.epoch == 2:
            interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", stop)
        cifar("train", *tiny_training)
    return runs()[0].info.run_id


@pytest.mark.parametrize("command", ["train", "resume", "sweep", "reproduce"])
def test_ctrl_c_while_waiting_leaves_no_run_behind(
    command, cifar, tiny, tiny_training, work, calm, sleeping, runs, request
):
    sleeping(interrupt)
    if command == "train":
        words = ("train", *tiny_training, "--threads", "2")
    elif command == "resume":
        words = ("train", "--resume", request.getfixturevalue("interrupted"))
    elif command == "sweep":
        base = {"dataset": str(tiny), "epochs": 1}
        (work / "spec.yaml").write_text(
            yaml.safe_dump({"name": "s", "base": base, "space": {"dropout": [0.0, 0.1]}, "workers": 2})
        )
        words = ("sweep", "spec.yaml")
    else:
        words = ("reproduce", request.getfixturevalue("trained").info.run_id)
    before = [(run.info.run_id, run.info.status) for run in runs()]
    with training():
        outcome = cifar(*words, "--wait")
        assert [each.what for each in living()] == ["other-seed0"]
    assert outcome.code == 130, outcome.output
    assert "waiting for the 2 cores: first comes other-seed0" in outcome.stderr
    assert [(run.info.run_id, run.info.status) for run in runs()] == before


PROGRAM = """
from cifar_mlflow.jobs.training.neighbours import Neighbours, Place
with Neighbours().turn("killed", Place("cores", 2, 2)):
    print("ready", flush=True)
    input()
"""


def test_the_place_of_a_process_that_was_killed_is_free(sleeping):
    def still_taken():
        raise InterruptedError

    sleeping(still_taken)
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(InterruptedError), Neighbours(wait=True).turn("this", TWO):
            pass
        other.kill()
        other.wait()
    with Neighbours(wait=True).turn("this", TWO):
        assert [each.what for each in living()] == ["this"]


def test_of_two_who_wait_the_first_has_its_turn_first(sleeping):
    slept, begun = [], []
    with ExitStack() as held:
        held.enter_context(training())

        def sleep():
            slept.append([each.what for each in living()])
            if len(slept) == 1:  # the first waits, and the second comes
                with Neighbours(wait=True).turn("second", TWO):
                    begun.append("second")
            held.close()  # nobody trains any more when the second looks again
            if len(slept) == 3:
                raise InterruptedError

        sleeping(sleep)
        with pytest.raises(InterruptedError), Neighbours(wait=True).turn("first", TWO):
            begun.append("first")
    assert begun == []
    assert [sorted(names) for names in slept] == [
        ["first", "other-seed0"], ["first", "other-seed0", "second"], ["first", "second"],
    ]  # fmt: skip


def test_a_sweep_is_one_neighbour_and_its_workers_are_none(work, tiny, cifar):
    (work / "spec.yaml").write_text(
        yaml.safe_dump({"name": "s", "base": {"dataset": str(tiny), "epochs": 1}, "space": {"dropout": [0.0, 0.1]}})
    )
    spec = load_spec("spec.yaml")
    seen = []
    trial._store.cache_clear()
    try:
        config = spec.configuration({"dropout": 0.0}, 0)
        fingerprint = config.run_fingerprint(*trial.digests(trial.settings(config)))
        run = trial.TrialRun(config, "n", {"kind": "trial", "run_fingerprint": fingerprint})
        trial.run_trial(spec, "e", run, lambda event: not seen.append(living()))
    finally:
        trial._store.cache_clear()
        trial.forget()
    assert seen == [[]]


@pytest.mark.parametrize(("others", "told"), [(1.9, True), (0.5, False)])
def test_other_programs_that_keep_the_cores_busy_are_told_of(cifar, tiny_training, monkeypatch, others, told):
    monkeypatch.setattr(neighbours._Load, "others", lambda self: others)
    lines = cifar("train", *tiny_training, *SHORT).stderr.splitlines()
    expected = (
        f"warning: other programs keep {others} of the 2 cores busy. Threads that share a core wait for one another: "
        "end those first, or give each training --threads 1"
    )
    assert (expected in lines) == told
    assert any("busy" in line for line in lines) == told


def test_how_busy_others_keep_the_cores_is_without_this_process(monkeypatch):
    clock = {"monotonic": 100.0, "process_time": 7.0}
    told = {name: lambda name=name: clock[name] for name in clock}
    monkeypatch.setattr(neighbours, "time", Clock(**told))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2}, raising=False)
    monkeypatch.setattr(psutil, "cpu_percent", lambda percpu: [90.0, 100.0, 80.0, 100.0])
    load = neighbours._Load()
    clock.update(monotonic=100.1)
    assert load.others() == 0.0  # the system counts too coarsely for such a time
    clock.update(monotonic=102.0, process_time=8.0)
    assert load.others() == pytest.approx(1.2)


def test_a_training_counts_with_its_threads():
    assert place_of(resolve({"threads": 3, "device": "cpu"})) == Place("cores", 3, 2)
    assert place_of(resolve({"threads": 3, "device": "cpu"}), 4) == Place("cores", 4, 2)


def test_a_full_disk_is_told_of(cifar, tiny_training, monkeypatch, runs):
    def full(directory, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(neighbours, "_write", full)
    outcome = cifar("train", *tiny_training)
    place = state_directory() / neighbours.PART
    assert (outcome.code, runs()) == (2, [])
    assert f"{place} cannot be written (No space left on device); make room there" in outcome.stderr


@pytest.mark.parametrize("words", [("sweep", "--wait", "true", "none.yaml"), ("sweep", "none.yaml", "--wait", "false")])
def test_a_flag_may_have_a_value_as_mlflow_run_gives_it(cifar, words):
    outcome = cifar(*words)
    assert (outcome.code, "none.yaml" in outcome.stderr, "unexpected" in outcome.stderr) == (2, True, False)


def test_a_flag_that_is_false_is_not_set(cifar, tiny_training, sleeping, calm):
    sleeping(interrupt)
    with training():
        assert cifar("train", *tiny_training, *SHORT, "--wait", "False").code == 0
        assert cifar("train", *tiny_training, "--wait", "true", "--threads", "2").code == 130


@pytest.mark.parametrize("option", ["--wait", "--system-metrics"])
def test_what_trains_nothing_takes_no_option_of_training(cifar, option):
    outcome = cifar("reproduce", "0" * 32, "--print-command", option)
    assert (outcome.code, f"{option}: --print-command trains nothing" in outcome.stderr) == (2, True)
