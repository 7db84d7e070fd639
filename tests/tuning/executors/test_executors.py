"""What a driver may rely on: the same of processes on this machine and of actors of a real Ray cluster."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import executor_tasks
import pytest
from executor_tasks import cannot_prepare, nothing, outcomes, until

from cifar_mlflow.errors import CifarMlflowError
from cifar_mlflow.tuning import ray_cluster
from cifar_mlflow.tuning.process_executor import ProcessExecutor

TASKS = {"executor_tasks.py": Path(executor_tasks.__file__).read_bytes()}


@contextlib.contextmanager
def on_ray(nodes, directory):
    """A function that makes an executor on the cluster."""
    from cifar_mlflow.tuning.ray_executor import RayExecutor

    with pytest.MonkeyPatch.context() as patch:
        for name, value in nodes.environment.items():
            patch.setenv(name, value)
        connected = ray_cluster.connect(nodes.address, directory / "ray.log", TASKS)
        with contextlib.closing(connected):
            yield lambda prepare=nothing: RayExecutor(
                2, 1, 0.0, executor_tasks.anything, prepare, directory / "workers.log"
            )


@contextlib.contextmanager
def on_this_machine(directory):
    yield lambda prepare=nothing: ProcessExecutor(2, 1, executor_tasks.anything, prepare, directory / "workers.log")


@pytest.fixture(scope="module", params=["process", "ray"])
def start(request, tmp_path_factory):
    """A function that starts two workers."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "process":
        with on_this_machine(directory) as made:
            yield made
    else:
        with on_ray(request.getfixturevalue("nodes"), directory) as made:
            yield made


@pytest.fixture(scope="module")
def executor(start):
    with start() as started:
        yield started


def test_tasks_are_done_by_workers_that_stay(executor):
    for start in (0, 2):
        assert executor.idle == 2
        executor.submit(start, ("square", start))
        executor.submit(start + 1, ("square", start + 1))
        assert executor.idle == 0
        assert outcomes(executor, 2) == {n: ("done", n**2) for n in (start, start + 1)}


def test_a_worker_has_the_threads_it_was_given(executor):
    executor.submit("a", ("environment", None))
    pid, run_id, threads = until(executor, "done").payload
    assert (run_id, threads) == (None, "1")
    assert pid != os.getpid()


def test_events_are_answered_and_no_ends_the_task(executor):
    executor.submit("a", ("count_until_told", None))
    heard, done = [], None
    while done is None:
        for event in executor.events(0.2):
            if event.kind == "done":
                done = event.payload
                continue
            heard.append(event.payload)
            executor.answer(event, event.payload < 3)
    assert (heard, done) == ([0, 1, 2, 3], 3)


def test_a_failure_is_told_in_words_and_the_worker_goes_on(executor):
    executor.submit("a", ("fail", "expected"))
    assert until(executor, "failed").payload == "a reason in words"
    executor.submit("b", ("fail", "unexpected"))
    assert until(executor, "failed").payload == "ValueError: a bug"
    assert executor.idle == 2


def test_a_killed_worker_is_replaced_and_its_task_is_reported_lost(executor):
    executor.submit("victim", ("kill_itself", None))
    first = until(executor, "event")
    lost = until(executor, "lost")
    assert lost.task_id == "victim"
    assert "killed by SIGKILL" in lost.payload
    for number in range(2):
        executor.submit(number, ("kill_itself", None))
    ended = [until(executor, "done", answer=False) for _ in range(2)]
    assert {event.task_id for event in ended} == {0, 1}
    assert first.payload not in [event.payload for event in ended]


def test_workers_that_cannot_start_end_in_one_message(start):
    told = pytest.raises(CifarMlflowError, match=r"(?s)the workers cannot start:.*no data here")
    with told, start(cannot_prepare) as executor:
        outcomes(executor, 1)


def test_stopping_gives_a_busy_worker_time_to_wrap_up(start, tmp_path):
    with start() as executor:
        executor.submit("a", ("sleep_until_terminated", tmp_path / "ending"))
        until(executor, "event")
    assert (tmp_path / "ending").read_text() == "Interrupted"
