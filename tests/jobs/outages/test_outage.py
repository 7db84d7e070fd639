"""A tracking server that goes away, in every way it can, while a network is trained; nothing is lost."""

import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import time
from pathlib import Path

import forked
import psutil
import pytest
from mlflow import MlflowClient
from proxy import proxy_before
from servers import free_port, mlflow_server, postgresql

from cifar_mlflow.tracking.outbox import state

QUICK = Path(__file__).parents[3] / "experiments" / "quick.yaml"
EPOCHS = 40
TRAINING = ("--epochs", EPOCHS, "--batch-size", 40, "--scheduler", "none", "--precision", "float32")
METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "lr", "images_per_second")
LONG = pytest.mark.long
# Seconds of a write: half of them within 1% of an epoch of CIFAR-10 on two cores, and even where the disk is busy none
# as long as the store is waited for.
USUAL, TIMEOUT = 0.25, 1


def slow_and_measured():
    """In the training's process: an epoch takes a moment, and what each write has cost is noted."""
    from cifar_mlflow.tracking.outbox import spooled_recorder

    os.environ |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    spooled_recorder.DRAIN_TIMEOUT = 2.0
    log_metrics = spooled_recorder.SpooledRecorder.log_metrics
    costs = []

    def measured(self, *arguments, **options):
        begun = time.perf_counter()
        log_metrics(self, *arguments, **options)
        costs.append(time.perf_counter() - begun)
        Path("costs.json").write_text(json.dumps(costs))
        time.sleep(0.1)

    spooled_recorder.SpooledRecorder.log_metrics = measured


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("outage")) as address:
        yield address


@pytest.fixture
def train(work, tiny):
    """Starts a training that is recorded at an address."""

    def start(address, *words):
        words = ("train", "--dataset", tiny, *TRAINING, *words)
        return forked.start(work, *words, tracking_uri=address, change=slow_and_measured)

    return start


def the_run(address, work):
    """The client and the id of the run whose outbox is in the state directory, once there are two epochs."""
    client, deadline = MlflowClient(address), time.monotonic() + 120
    while time.monotonic() < deadline:
        for outbox in (work / "state" / "spool").glob("*/outbox.sqlite"):
            run_id = state.look(outbox.parent).run_id
            if run_id and len(client.get_metric_history(run_id, "val_accuracy")) >= 2:
                return client, run_id
        time.sleep(0.1)
    raise AssertionError("no run has begun")


def written_epochs(work):
    costs = work / "costs.json"
    try:
        return len(json.loads(costs.read_text()))
    except (OSError, ValueError):
        return 0


def wait_for_epochs(work, more):
    until, deadline = min(written_epochs(work) + more, EPOCHS), time.monotonic() + 120
    while written_epochs(work) < until:
        assert time.monotonic() < deadline, "the training stands still"
        time.sleep(0.05)


def assert_complete(client, run_id, status="FINISHED"):
    """Every point of every metric once, the files, both models, and the run's end."""
    for name in METRICS:
        assert [point.step for point in client.get_metric_history(run_id, name)] == list(range(1, EPOCHS + 1)), name
    run = client.get_run(run_id)
    assert run.info.status == status
    assert {"curves.png", "confusion_matrix.png", "config.yaml"} <= {
        file.path for file in client.list_artifacts(run_id)
    }
    models = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
    assert sorted((model.tags["weights"], str(model.status)) for model in models) == [
        ("best", "READY"),
        ("last", "READY"),
    ]
    assert {"best_val_accuracy", "final_val_accuracy"} <= set(run.data.metrics)


def assert_never_blocked(work):
    costs = json.loads((work / "costs.json").read_text())
    assert len(costs) == EPOCHS
    assert statistics.median(costs) < USUAL
    assert max(costs) < TIMEOUT


@pytest.mark.parametrize("mode", ["hang", "500", *(pytest.param(m, marks=LONG) for m in ("refuse", "401", "garbage"))])
def test_a_server_that_comes_back(server, train, work, mode):
    with proxy_before(server) as proxy:
        training = train(proxy.address)
        client, run_id = the_run(server, work)
        proxy.switch(mode)
        wait_for_epochs(work, 15)
        assert len(client.get_metric_history(run_id, "val_accuracy")) < written_epochs(work) - 5
        proxy.switch("pass")
        outcome = training.wait()
    assert outcome.code == 0, outcome.output
    assert "writes waiting" in outcome.stderr
    assert_complete(client, run_id)
    assert_never_blocked(work)
    assert list((work / "state" / "spool").iterdir()) == []


@pytest.mark.parametrize("mode", ["slow", pytest.param("refuse", marks=LONG)])
def test_away_until_after_the_end_then_synced(server, train, work, mode):
    with proxy_before(server) as proxy:
        training = train(proxy.address)
        client, run_id = the_run(server, work)
        proxy.switch(mode)
        outcome = training.wait()
        assert outcome.code == 4, outcome.output
        assert "cifar-mlflow sync" in outcome.stderr.splitlines()[-1]
        assert "accuracy" in outcome.stdout
        assert client.get_run(run_id).info.status == "RUNNING"
        proxy.switch("refuse")
        assert forked.run(work, "sync", tracking_uri=proxy.address).code == 4
        proxy.switch("pass")
        synced = forked.run(work, "sync", tracking_uri=proxy.address)
        assert synced.code == 0, synced.output
        assert run_id in synced.stdout
        assert "nothing waits" in forked.run(work, "sync", tracking_uri=proxy.address).stdout
    assert_complete(client, run_id)
    assert_never_blocked(work)


def test_killed_and_restarted_for_real(train, work, tmp_path):
    port = free_port()
    with mlflow_server(tmp_path, port=port) as address:
        training = train(address)
        _, run_id = the_run(address, work)
    wait_for_epochs(work, 5)
    with mlflow_server(tmp_path, port=port) as address:
        outcome = training.wait()
        if outcome.code == 4:  # it was faster than the server's start
            assert forked.run(work, "sync", tracking_uri=address).code == 0
        assert_complete(MlflowClient(address), run_id)
    assert_never_blocked(work)


def test_offline_from_the_beginning(server, train, work):
    outcome = train("http://127.0.0.1:9", "--offline", "--experiment", "offline").wait()
    assert outcome.code == 0, outcome.output
    assert "cifar-mlflow sync" in outcome.stdout
    for _ in range(2):
        assert forked.run(work, "sync", tracking_uri=server).code == 0
    client = MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name("offline").experiment_id])
    assert_complete(client, run.info.run_id)
    assert run.info.end_time - run.info.start_time > 100 * EPOCHS  # its own times, not those of the delivery


def test_a_dead_server_is_told_of_with_the_way_out(cifar, tiny, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    begun = time.monotonic()
    outcome = cifar("train", "--dataset", tiny)
    assert (outcome.code, time.monotonic() - begun < 10) == (4, True)
    assert "--offline" in outcome.stderr


@pytest.mark.parametrize("kill", [12, *(pytest.param(kill, marks=LONG) for kill in (5, 9, 15, 18, 20))])
def test_sync_killed_in_the_middle_is_done_again(server, train, work, kill):
    name = f"killed-{kill}"
    assert train(None, "--offline", "--experiment", name).wait().code == 0
    assert forked.run(work, "sync", tracking_uri=server, kill_before_write=kill).code == -9
    assert forked.run(work, "sync", tracking_uri=server).code == 0
    client = MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert_complete(client, run.info.run_id)
    assert len(client.search_logged_models([run.info.experiment_id])) == 2


@LONG
def test_a_server_that_is_stopped_for_a_minute(work, tiny, tmp_path):
    with mlflow_server(tmp_path) as address:
        training = forked.start(
            work, "train", "--dataset", tiny, *TRAINING, tracking_uri=address, change=slow_and_measured
        )
        client, run_id = the_run(address, work)
        stopped = server_processes(address)
        for process in stopped:
            process.suspend()
        time.sleep(60)
        for process in stopped:
            process.resume()
        outcome = training.wait()
        if outcome.code == 4:
            assert forked.run(work, "sync", tracking_uri=address).code == 0
        assert_complete(client, run_id)
        assert_never_blocked(work)


def server_processes(address):
    """The MLflow server at the address, and its workers."""
    port = int(address.rsplit(":", 1)[1])
    mine = psutil.Process().children(recursive=True)
    found = [process for process in mine if str(port) in " ".join(process.cmdline())]
    assert found
    return [*found, *(child for process in found for child in process.children(recursive=True))]


@LONG
def test_postgresql_behind_the_server_is_restarted(train, work, tmp_path):
    with postgresql() as database, mlflow_server(tmp_path, database.uri) as address:
        training = train(address)
        client, run_id = the_run(address, work)
        database.stop()
        wait_for_epochs(work, 10)
        database.start()
        outcome = training.wait()
        if outcome.code == 4:
            assert forked.run(work, "sync", tracking_uri=address).code == 0
        assert_complete(client, run_id)
        assert_never_blocked(work)


@pytest.mark.parametrize("seconds", [6, pytest.param(30, marks=LONG)])
def test_a_sqlite_store_that_another_process_has_locked(train, work, empty_store, seconds):
    shutil.copy(empty_store, work / "mlflow.db")
    store = f"sqlite:///{work}/mlflow.db"
    training = train(store)
    client, run_id = the_run(store, work)
    with contextlib.closing(sqlite3.connect(work / "mlflow.db", timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        database.execute("COMMIT")
    outcome = training.wait()
    if outcome.code == 4:
        assert forked.run(work, "sync", tracking_uri=store).code == 0
    assert_complete(client, run_id)
    assert_never_blocked(work)


SPEC = """
name: through-an-outage
base: {{dataset: {dataset}, epochs: 3, batch_size: 8, scheduler: none, precision: float32}}
space:
  activation: [relu, elu, silu]
  learning_rate: [0.002, 0.01]
workers: 1
log_models: false
"""


@pytest.mark.parametrize(
    ("spec", "mode"),
    [("tiny", "refuse"), *(pytest.param("quick.yaml", mode, marks=LONG) for mode in ("refuse", "hang", "500"))],
)
def test_a_sweep_goes_on_without_its_server(server, work, tiny, spawn, monkeypatch, spec, mode):
    # Under a name of its own in each mode, since the server is the same.
    text = (
        SPEC.format(dataset=tiny)
        if spec == "tiny"
        else QUICK.read_text().replace("name: quick", f"name: outage-{mode}")
    )
    name = f"outage-{spec}-{mode}".replace(".", "-")
    path = work / "spec.yaml"
    path.write_text(f"{text}experiment: {name}\n")
    with proxy_before(server) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        client = MlflowClient(server)
        sweep = spawn("sweep", path)
        deadline = time.monotonic() + 120
        while not finished_trials(client, name):
            assert sweep.poll() is None, sweep.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        proxy.switch(mode)
        time.sleep(8 if spec == "tiny" else 30)
        assert sweep.poll() is None, sweep.communicate()
        proxy.switch("pass")
        _, stderr = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, stderr
    trials = finished_trials(client, name)
    assert len(trials) == len({run.data.tags["run_fingerprint"] for run in trials}) == (6 if spec == "tiny" else 12)
    for run in trials:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "val_loss")] == [1, 2, 3]
    experiment = client.get_experiment_by_name(name).experiment_id
    assert {run.info.status for run in client.search_runs([experiment])} == {"FINISHED"}


def finished_trials(client, experiment):
    found = client.get_experiment_by_name(experiment)
    condition = "tags.kind = 'trial' and attributes.status = 'FINISHED'"
    return client.search_runs([found.experiment_id], condition) if found else []
