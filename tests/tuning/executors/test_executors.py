"""What a driver may rely on: the same of processes on this machine and of actors of a real Ray cluster."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import executor_tasks
import pytest
from executor_tasks import cannot_prepare, nothing, outcomes, until
from servers import serving
from sweeps_on_ray import check, local_table, wait_for, write_spec

from cifar_mlflow.errors import CifarMlflowError
from cifar_mlflow.tuning import ray_cluster
from cifar_mlflow.tuning.process_executor import ProcessExecutor

QUICK = Path(__file__).parents[3] / "experiments" / "quick.yaml"
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
                2, 1, 0.0, executor_tasks.anything, nothing, prepare, directory / "workers.log"
            )


@contextlib.contextmanager
def on_this_machine(directory):
    yield lambda prepare=nothing: ProcessExecutor(2, 1, executor_tasks.anything, prepare, directory / "workers.log")


@pytest.fixture(scope="class", params=["process", "ray"])
def start(request, tmp_path_factory):
    """A function that starts two workers."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "process":
        with on_this_machine(directory) as made:
            yield made
    else:
        with on_ray(request.getfixturevalue("nodes"), directory) as made:
            yield made


@pytest.fixture(scope="class")
def executor(start):
    with start() as started:
        yield started


class TestAnyExecutor:
    """One executor of each kind serves all of these, and is gone with the last."""

    def test_tasks_are_done_by_workers_that_stay(self, executor):
        for start in (0, 2):
            assert executor.idle == 2
            executor.submit(start, ("square", start))
            executor.submit(start + 1, ("square", start + 1))
            assert executor.idle == 0
            assert outcomes(executor, 2) == {n: ("done", n**2) for n in (start, start + 1)}

    def test_a_worker_has_the_threads_it_was_given(self, executor):
        executor.submit("a", ("environment", None))
        pid, run_id, threads = until(executor, "done").payload
        assert (run_id, threads) == (None, "1")
        assert pid != os.getpid()

    def test_events_are_answered_and_no_ends_the_task(self, executor):
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

    def test_a_failure_is_told_in_words_and_the_worker_goes_on(self, executor):
        executor.submit("a", ("fail", "expected"))
        assert until(executor, "failed").payload == "a reason in words"
        executor.submit("b", ("fail", "unexpected"))
        assert until(executor, "failed").payload == "ValueError: a bug"
        assert executor.idle == 2

    def test_a_killed_worker_is_replaced_and_its_task_is_reported_lost(self, executor):
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

    def test_workers_that_cannot_start_end_in_one_message(self, start):
        told = pytest.raises(CifarMlflowError, match=r"(?s)the workers cannot start:.*no data here")
        with told, start(cannot_prepare) as executor:
            outcomes(executor, 1)

    def test_stopping_gives_a_busy_worker_time_to_wrap_up(self, start, tmp_path):
        with start() as executor:
            executor.submit("a", ("sleep_until_terminated", tmp_path / "ending"))
            until(executor, "event")
        assert (tmp_path / "ending").read_text() == "Interrupted"


# ------------------------------------------------------------------------------------------- a whole sweep, and none


@pytest.fixture
def on_ray_nodes(ray_environment, cifar, work, tiny, monkeypatch):
    """The nodes, and a store and the variables for a command that trains on them."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open-sesame")
    monkeypatch.setenv("MPLCONFIGDIR", os.environ["MPLCONFIGDIR"])
    return ray_environment


@pytest.mark.parametrize("quick", [False, pytest.param(True, marks=pytest.mark.long)], ids=["tiny", "quick.yaml"])
def test_a_sweep_on_both_nodes_has_the_table_of_one_here(
    on_ray_nodes, cifar_process, work, tiny, runs, tmp_path_factory, empty_store, quick
):
    spec = QUICK if quick else write_spec(work, tiny)
    outcome = cifar_process("sweep", spec, "--executor", "ray", "--ray-address", on_ray_nodes.address)
    assert outcome.code == 0, outcome.output
    trials = check(runs(), local_table(spec, tmp_path_factory.mktemp("local"), empty_store), work)
    if on_ray_nodes.is_divided:
        assert len({run.data.tags["pid_namespace"] for run in trials}) == 2
    assert not any(node.workers() for node in on_ray_nodes.nodes)
    # Nothing of Ray's own on the terminal, and nothing secret anywhere but in the environment of the workers.
    assert "ray::" not in outcome.output
    assert not re.search(r"^\[?20\d\d-|Warning|raylet|gcs", outcome.stderr, re.MULTILINE), outcome.stderr
    logs = on_ray_nodes.logs() + "".join(path.read_text() for path in work.parent.rglob("*.log"))
    assert "Creating runtime env: " in logs  # where the variables of a runtime_env would stand
    for secret in ("open-sesame", on_ray_nodes.token):
        assert secret not in logs
        assert not any(secret in str(run.data) for run in runs())


@pytest.mark.long
def test_a_worker_without_the_data_is_told_by_its_node(on_ray_nodes, cifar_process, work, tiny, runs):
    if not on_ray_nodes.is_divided:
        pytest.skip("the nodes have one file system")
    shutil.copy(tiny, on_ray_nodes.hidden / "tiny.npz")
    spec = write_spec(work, on_ray_nodes.hidden / "tiny.npz")
    outcome = cifar_process("sweep", spec, "--executor", "ray", "--ray-address", on_ray_nodes.address)
    assert outcome.code == 1
    head, second = on_ray_nodes.hosts
    assert f"error: the workers cannot start:\n  - {second}: {on_ray_nodes.hidden}/tiny.npz: there is" in outcome.stderr
    assert f"- {head}" not in outcome.stderr
    assert outcome.stderr.count("tiny.npz") == 1
    assert [run.info.status for run in runs()] == ["FAILED"]  # the parent, and no trial
    assert not any(node.workers() for node in on_ray_nodes.nodes)


@pytest.mark.long
def test_cifar_10_is_fetched_once_a_node_from_the_address_that_is_given(
    on_ray_nodes, spawn, work, runs, cifar10_directory, monkeypatch
):
    if not on_ray_nodes.is_divided:
        pytest.skip("the nodes have one cache")
    spec = write_spec(work, "cifar10", {"epochs": 100}, workers=4)
    with serving(cifar10_directory, on_ray_nodes.host) as (address, asked):
        monkeypatch.setenv("CIFAR_MLFLOW_DATA", address)
        process = spawn("sweep", spec, "--executor", "ray", "--ray-address", on_ray_nodes.address)
        wait_for(lambda: len([run for run in runs() if run.data.tags["kind"] == "trial"]) == 4, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    places = [work.parent / "cache", *(node.seen(on_ray_nodes.cache) for node in on_ray_nodes.nodes)]
    assert all((place / "cifar-mlflow" / "cifar-10-batches-py" / "test_batch").exists() for place in places)
    assert set(Counter(asked).values()) == {len(places)}
    for place in places:
        shutil.rmtree(place)


@pytest.mark.parametrize(
    ("variables", "address", "code", "told"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, None, 1, "refuses the token; correct RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": "", "HOME": "/nowhere"}, None, 2, "there is no token in RAY_AUTH_TOKEN or /nowhere/.ray"),
        ({"RAY_AUTH_MODE": "disabled"}, None, 2, "RAY_AUTH_MODE=disabled is refused"),
        ({}, "127.0.0.1:1", 1, "no Ray cluster answers at 127.0.0.1:1"),
        ({}, "ray://127.0.0.1:10001", 2, "--ray-address: 'ray://127.0.0.1:10001' is refused; give HOST:PORT"),
    ],
    ids=["wrong token", "no token", "without tokens", "unreachable", "Ray Client"],
)
def test_what_keeps_a_sweep_out_of_the_cluster_is_one_message(
    on_ray_nodes, cifar_process, work, tiny, runs, monkeypatch, variables, address, code, told
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    spec = write_spec(work, tiny)
    outcome = cifar_process("sweep", spec, "--executor", "ray", "--ray-address", address or on_ray_nodes.address)
    assert time.monotonic() - began < 15
    assert outcome.code == code, outcome.output
    assert told in outcome.stderr
    assert "InvalidAuthToken" not in outcome.stderr
    assert outcome.stderr.count("error:") == 1
    assert runs() == []


@pytest.mark.long
def test_ctrl_c_ends_all_workers_and_closes_all_runs(on_ray_nodes, spawn, work, tiny, runs):
    spec = write_spec(work, tiny, base={"epochs": 5000})
    process = spawn("sweep", spec, "--executor", "ray", "--ray-address", on_ray_nodes.address)
    wait_for(lambda: [run for run in runs() if "val_accuracy" in run.data.metrics], process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "The same command goes on from here" in stderr
    assert {run.info.status for run in runs()} == {"KILLED"}
    assert not any(node.workers() for node in on_ray_nodes.nodes)
