"""A sweep that was broken off, by kill -9 or Ctrl-C, goes on to the same table; several sweeps at once all end."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from servers import mlflow_server
from support import run_here, standing_in
from sweeps import comparable, trained_once

QUICK_SPEC = Path(__file__).parents[3] / "experiments" / "quick.yaml"


def workers_of(process) -> list[psutil.Process]:
    """The processes that train: forked by the driver's one child."""
    return [worker for server in psutil.Process(process.pid).children() for worker in server.children()]


def wait_for(condition, process=None, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.2)  # a look at the store costs as much as an epoch


def test_a_killed_sweep_goes_on_to_the_same_table(expected, cifar, write_spec, spawn, table, runs, children):
    spec = write_spec(workers=1)
    kill_at_random_moments(spawn, spec, children, times=2)
    outcome = cifar("sweep", spec)
    assert outcome.code == 0, outcome.output
    assert table() == expected
    assert "RUNNING" not in {run.info.status for run in runs()}
    assert trained_once(children())


def kill_at_random_moments(spawn, spec, children, times, within=3) -> None:
    """Starts the sweep and kills it (the driver and the workers, or the driver alone), `times` times.

    That is at most `within` seconds after its first new run.
    """
    chance = random.Random(0)
    for number in range(times):
        process = spawn("sweep", spec)
        before = len(children())
        wait_for(lambda before=before, process=process: len(children()) > before or process.poll() is not None)
        time.sleep(chance.uniform(0, within))
        if process.poll() is not None:  # it was done before its time
            return
        driver = psutil.Process(process.pid)
        victims = driver.children(recursive=True) if number % 2 == 0 else []
        for victim in (driver, *victims):
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        process.wait()


def test_the_run_of_a_killed_worker_is_tried_once_more(cifar, write_spec, spawn, children, parent):
    # So many epochs that the worker is still at the first run when it is killed.
    process = spawn("sweep", write_spec(repeats=1, space={"activation": ["elu"]}, base={"epochs": 80}))
    wait_for(lambda: any("val_accuracy" in run.data.metrics for run in children()), process)
    workers_of(process)[0].kill()
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert "killed by SIGKILL; it is tried once more" in stderr
    assert sorted(run.info.status for run in children()) == ["FINISHED", "KILLED"]
    assert "1 run, 0 failed" in stdout


def test_ctrl_c_closes_every_run_and_the_same_command_goes_on(cifar, write_spec, spawn, children, parent, statuses):
    spec = write_spec(repeats=1, base={"epochs": 40}, space={"activation": ["relu", "elu"]})
    process = spawn("sweep", spec)
    wait_for(lambda: any("val_accuracy" in run.data.metrics for run in children()), process)
    # A terminal sends it to the whole process group.
    driver = psutil.Process(process.pid)
    for each in (*driver.children(recursive=True), driver):
        each.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command goes on" in stderr
    assert "Traceback" not in stderr
    assert parent().info.status == "KILLED"
    assert set(statuses()) <= {"KILLED", "FINISHED"}
    outcome = run_here("sweep", spec)
    assert outcome.code == 0, outcome.output
    assert parent().info.status == "FINISHED"
    assert trained_once(children())


@pytest.mark.long
@pytest.mark.parametrize("where", ["a fresh sqlite store", "a server"])
def test_four_sweeps_at_once_all_end(write_spec, spawn, runs, work, tmp_path, monkeypatch, where):
    specs = []
    for number in range(4):
        path = work / f"sweep{number}.yaml"
        shutil.move(write_spec(name=f"tiny{number}"), path)
        specs.append(path)
    with contextlib.ExitStack() as stack:
        if where == "a server":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.enter_context(mlflow_server(tmp_path)))
        processes = [spawn("sweep", spec) for spec in specs]
        for process in processes:
            _, stderr = process.communicate(timeout=900)
            assert process.returncode == 0, stderr
    if where == "a server":
        shutil.copy(tmp_path / "server.db", work / "mlflow.db")
    assert Counter(run.info.status for run in runs()) == {"FINISHED": 4 * 9}


@pytest.mark.long
def test_a_sweep_killed_five_times_goes_on_to_the_same_table(expected, cifar, write_spec, spawn, table, runs, children):
    spec = write_spec(workers=2)
    kill_at_random_moments(spawn, spec, children, times=5)
    assert cifar("sweep", spec).code == 0
    assert table() == expected
    assert "RUNNING" not in {run.info.status for run in runs()}
    assert trained_once(children())


@pytest.mark.long
def test_quick_yaml_killed_five_times_goes_on_to_the_same_table(
    cifar, spawn, table, runs, children, tmp_path_factory, empty_store
):
    with standing_in(tmp_path_factory.mktemp("quick")) as elsewhere:
        shutil.copy(empty_store, elsewhere / "mlflow.db")
        assert run_here("sweep", QUICK_SPEC).code == 0
        (results,) = elsewhere.rglob("results.csv")
    kill_at_random_moments(spawn, QUICK_SPEC, children, times=5, within=15)
    assert cifar("sweep", QUICK_SPEC).code == 0
    assert table() == comparable(results)
    assert "RUNNING" not in {run.info.status for run in runs()}
    assert trained_once(children())
    assert len({run.data.tags["run_fingerprint"] for run in children()}) == 12
