"""Real processes: tasks, events, kill -9, and the end of the driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cifar_mlflow.errors import CifarMlflowError, DataError
from cifar_mlflow.tuning import process_executor
from cifar_mlflow.tuning.process_executor import ProcessExecutor

# ------------------------------------------------------------------- what the workers run: module-level functions


def nothing():
    pass


def cannot_prepare():
    raise DataError("no data here")


def dies_in_preparation():
    os._exit(3)


def prints_while_it_prepares():
    print("to standard output", flush=True)
    print("to standard error", file=sys.stderr, flush=True)


def square(argument, tell):
    return argument**2


def environment(argument, tell):
    return os.getpid(), os.environ.get("MLFLOW_RUN_ID"), os.environ.get("OMP_NUM_THREADS")


def count_until_told(argument, tell):
    number = 0
    while tell(number):
        number += 1
    return number


def fail(argument, tell):
    raise DataError("a reason in words") if argument == "expected" else ValueError("a bug")


def hang(argument, tell):
    tell(os.getpid())
    time.sleep(60)


def sleep_until_terminated(argument, tell):
    path = argument
    try:
        tell(os.getpid())
        time.sleep(60)
    except BaseException as error:
        time.sleep(0.3)  # as if it had something to close
        path.write_text(type(error).__name__)
        raise


def parent(argument, tell):
    names = [path.read_text().strip() for path in Path(f"/proc/{os.getppid()}/task").glob("*/comm")]
    others = [name for name in names if not name.startswith("jemalloc")]  # pyarrow's, which is made for forks
    return os.getppid(), len(others), "torch.export._trace" in sys.modules


# ------------------------------------------------------------------------------------------------------ the tests


@pytest.fixture
def log(tmp_path):
    return tmp_path / "workers.log"


def until(executor, kind, answer=True):
    """Answers events until one of `kind` comes; returns it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for event in executor.events(0.2):
            if event.kind == "event":
                executor.answer(event, answer)
            if event.kind == kind:
                return event
    raise AssertionError(f"no {kind}")


def outcomes(executor, count):
    found = {}
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        for event in executor.events(0.2):
            found[event.task_id] = (event.kind, event.payload)
    return found


def test_tasks_are_done_by_workers_that_stay(log):
    with ProcessExecutor(2, 1, square, nothing, log) as executor:
        for start in (0, 2):
            assert executor.idle == 2
            executor.submit(start, start)
            executor.submit(start + 1, start + 1)
            assert executor.idle == 0
            assert outcomes(executor, 2) == {n: ("done", n**2) for n in (start, start + 1)}


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


def test_events_are_answered_and_no_ends_the_task(log):
    with ProcessExecutor(1, 1, count_until_told, nothing, log) as executor:
        executor.submit("a", None)
        heard, done = [], None
        while done is None:
            for event in executor.events(0.2):
                if event.kind == "done":
                    done = event.payload
                    continue
                heard.append(event.payload)
                executor.answer(event, event.payload < 3)
        assert (heard, done) == ([0, 1, 2, 3], 3)


def test_a_failure_is_told_in_words_and_the_worker_goes_on(log):
    with ProcessExecutor(1, 1, fail, nothing, log) as executor:
        executor.submit("a", "expected")
        assert until(executor, "failed").payload == "a reason in words"
        executor.submit("b", "unexpected")
        assert until(executor, "failed").payload == "ValueError: a bug"
    # Only the second is a fault of the program, of which the log must tell where it was.
    assert log.read_text().count("Traceback") == 1


def test_a_killed_worker_is_replaced_and_its_task_is_reported_lost(log):
    with ProcessExecutor(2, 1, hang, nothing, log) as executor:
        executor.submit("victim", None)
        first = until(executor, "event")
        os.kill(first.payload, signal.SIGKILL)
        lost = until(executor, "lost")
        assert lost.task_id == "victim"
        assert "killed by SIGKILL" in lost.payload
        assert executor.idle == 2
        executor.submit("next", None)
        second = until(executor, "event")
        assert second.task_id == "next"
        assert second.payload != first.payload


def test_workers_that_cannot_start_end_in_one_message(log):
    with (
        ProcessExecutor(2, 1, square, cannot_prepare, log) as executor,
        pytest.raises(CifarMlflowError, match="the workers cannot start: no data here"),
    ):
        outcomes(executor, 1)


def test_workers_that_die_while_they_prepare_are_replaced_as_often_as_there_are_and_no_more(log, monkeypatch):
    started = []
    start = ProcessExecutor._start
    monkeypatch.setattr(ProcessExecutor, "_start", lambda executor: started.append(1) or start(executor))
    with (
        ProcessExecutor(2, 1, square, dies_in_preparation, log) as executor,
        pytest.raises(
            CifarMlflowError, match=rf"cannot start \(the worker process ended with exit code 3\); see {log}"
        ),
    ):
        outcomes(executor, 1)
    assert len(started) == 4


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


def test_stopping_gives_a_busy_worker_time_to_wrap_up(log, tmp_path):
    with ProcessExecutor(1, 1, sleep_until_terminated, nothing, log) as executor:
        executor.submit("a", tmp_path / "ending")
        pid = until(executor, "event").payload
    assert (tmp_path / "ending").read_text() == "Interrupted"
    assert not psutil.pid_exists(pid)


DRIVER = """
import pathlib, sys
sys.path.insert(0, {here!r})
import test_executors as t
if __name__ == "__main__":
    executor = t.ProcessExecutor(1, 1, t.{call}
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
