"""Real processes: tasks, events, kill -9, and the end of the driver."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from executor_tasks import (
    device,
    dies_in_preparation,
    environment,
    nothing,
    outcomes,
    parent,
    prints_while_it_prepares,
    square,
    until,
)

from cifar_mlflow.errors import CifarMlflowError
from cifar_mlflow.tuning import process_executor
from cifar_mlflow.tuning.process_executor import ProcessExecutor


def test_a_worker_inherits_no_run_and_the_threads_it_was_given(log, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "the parent's")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with ProcessExecutor(1, 3, environment, nothing, log) as executor:
        executor.submit("a", None)
        pid, run_id, threads = until(executor, "done").payload
    assert (run_id, threads) == (None, "3")
    assert pid != os.getpid()
    assert os.environ["MLFLOW_RUN_ID"] == "the parent's"
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.skipif(not process_executor.FORKED, reason="workers are started anew here")
def test_workers_are_forked_from_one_process_without_threads_that_has_imported_what_they_need(log):
    with ProcessExecutor(2, 1, parent, nothing, log) as executor:
        for number in range(2):
            executor.submit(number, None)
        (kind, first), (_, second) = outcomes(executor, 2).values()
    assert kind == "done"
    assert first == second == (first[0], 1, True)
    assert first[0] != os.getpid()


@pytest.mark.skipif(not process_executor.FORKED, reason="workers are started anew here")
def test_where_the_fork_server_ends_in_its_imports_a_worker_is_started_anew(log, tmp_path):
    (tmp_path / "fatal.py").write_text("raise SystemExit(7)")
    call = f"square, t.nothing, pathlib.Path({str(log)!r}), ['fatal'])"
    script = DRIVER.format(here=os.path.dirname(__file__), call=call, argument=3, kind="done", then="")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    driver = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (driver.stdout, driver.returncode) == ("9\n", 0)


def test_workers_that_die_while_they_prepare_are_replaced_as_often_as_there_are_and_no_more(log, monkeypatch):
    started = []
    start = ProcessExecutor._start
    monkeypatch.setattr(
        ProcessExecutor, "_start", lambda executor, number: started.append(1) or start(executor, number)
    )
    with (
        ProcessExecutor(2, 1, square, dies_in_preparation, log) as executor,
        pytest.raises(
            CifarMlflowError, match=rf"cannot start \(the worker process ended with exit code 3\); see {log}"
        ),
    ):
        outcomes(executor, 1)
    assert len(started) == 4


def test_each_worker_has_its_device_and_so_has_the_one_in_its_place(log):
    with ProcessExecutor(2, 1, device, nothing, log, devices=["0", "1"]) as executor:
        for number in range(2):
            executor.submit(number, False)
        assert sorted(payload for _, payload in outcomes(executor, 2).values()) == ["0", "1"]
        executor.submit("dies", True)
        assert until(executor, "lost").task_id == "dies"
        for number in range(2):
            executor.submit(number, False)
        assert sorted(payload for _, payload in outcomes(executor, 2).values()) == ["0", "1"]


def test_what_workers_print_goes_to_the_log(log, capfd):
    with ProcessExecutor(1, 1, square, prints_while_it_prepares, log) as executor:
        executor.submit("a", 3)
        assert until(executor, "done").payload == 9
    assert sorted(log.read_text().splitlines()) == ["to standard error", "to standard output"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "told"),
    [(0, "ended with exit code 0"), (1, "ended with exit code 1"), (-9, "was killed by SIGKILL"), (None, "code None")],
)
def test_how_a_worker_ended_is_told_in_words(code, told):
    assert process_executor._ending(code).endswith(told)


DRIVER = """
import pathlib, sys
from cifar_mlflow.tuning.process_executor import ProcessExecutor
sys.path.insert(0, {here!r})
import executor_tasks as t
if __name__ == "__main__":
    executor = ProcessExecutor(1, 1, t.{call}
    executor.submit("a", {argument})
    print(t.until(executor, {kind!r}).payload, flush=True)
    {then}
"""


@pytest.fixture
def busy_driver(log, tmp_path):
    """Starts a process that has a worker at work, which writes how it ended; `then` is what it does after that."""
    started = []

    def start(then: str) -> tuple[subprocess.Popen, psutil.Process]:
        script = tmp_path / "driver.py"
        call = f"sleep_until_terminated, t.nothing, pathlib.Path({str(log)!r}))"
        argument = f"pathlib.Path({str(tmp_path / 'ending')!r})"
        here = os.path.dirname(__file__)
        script.write_text(DRIVER.format(here=here, call=call, argument=argument, kind="event", then=then))
        started.append(subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True))
        return started[-1], psutil.Process(int(started[-1].stdout.readline()))

    yield start
    for driver in started:
        driver.kill()
        driver.communicate()


def test_a_worker_ends_when_its_driver_is_killed(busy_driver, tmp_path):
    driver, worker = busy_driver("t.time.sleep(60)")
    driver.kill()
    worker.wait(timeout=15)  # less than it would be given to wrap up
    assert (tmp_path / "ending").read_text() == "Interrupted"


@pytest.mark.skipif(not process_executor.FORKED, reason="workers are started anew here")
def test_a_killed_fork_server_costs_the_tasks_and_its_workers_end(busy_driver, tmp_path):
    then = "print(t.until(executor, 'lost').task_id); executor.submit('b', t.os.devnull); "
    then += "print(t.until(executor, 'event').payload, flush=True); t.time.sleep(60)"
    driver, worker = busy_driver(then)
    worker.parent().kill()
    assert driver.stdout.readline() == "a\n"
    assert int(driver.stdout.readline()) != worker.pid
    worker.wait(timeout=15)
    assert (tmp_path / "ending").read_text() == "Interrupted"
