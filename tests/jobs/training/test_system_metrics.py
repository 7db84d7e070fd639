"""MLflow's system metrics of a training: those of MLflow itself, and nothing else changes."""

from __future__ import annotations

import base64
import json
import signal
import threading
import zlib

import pytest
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from cifar_mlflow.errors import ConfigurationError, Interrupted
from cifar_mlflow.jobs.training.progress import TrainingProgress
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.reading import runs as reading
from cifar_mlflow.tracking.store import connect
from cifar_mlflow.tracking.writing import system_metrics
from cifar_mlflow.tracking.writing.system_metrics import SystemMetrics

VARIABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


def names_of_mlflow():
    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for monitor in monitors:
        monitor.collect_metrics()
    return {f"system/{name}" for monitor in monitors for name in monitor.aggregate_metrics()}


@pytest.fixture
def sampled(runs, client):
    """A function that returns the steps of each of the newest run's system metrics."""

    def steps():
        run, *_ = runs()
        names = [name for name in run.data.metrics if name.startswith("system/")]
        return {
            name: [point.step for point in client().get_metric_history(run.info.run_id, name)]
            for name in names
            if "gpu" not in name
        }

    return steps


def test_a_training_has_the_metrics_of_mlflow_and_is_the_same_otherwise(
    cifar, tiny_training, sampled, runs, monkeypatch
):
    appended = []
    plain = Outbox.append
    monkeypatch.setattr(Outbox, "append", lambda *a, **k: (appended.append(threading.get_ident()), plain(*a, **k))[1])
    monkeypatch.setenv(VARIABLE, "false")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1000")  # the training is shorter
    assert cifar("train", *tiny_training, "--run-name", "without").code == 0
    outcome = cifar("train", *tiny_training, "--run-name", "with", "--system-metrics")
    assert outcome.code == 0, outcome.output
    assert "metrics" not in outcome.stderr
    assert set(sampled()) == names_of_mlflow()
    assert all(steps == [0] for steps in sampled().values())
    assert set(appended) == {threading.get_ident()}  # an outbox has one writer
    assert not [thread for thread in threading.enumerate() if thread.name == system_metrics.THREAD]
    metrics = {run.info.run_name: dict(run.data.metrics) for run in runs()}
    same = {name: value for name, value in metrics["without"].items() if name != "images_per_second"}
    assert not [name for name in same if name.startswith("system/")]
    assert {name: metrics["with"][name] for name in same} == same
    records = {record.name: set(record.metrics) for record in reading.to_records(connect(), runs())}
    assert records["with"] == records["without"]
    for form in ("json", "html"):
        compared = cifar("compare", "tiny", "--format", form)
        assert (compared.code, "system/" in compared.output) == (0, False)
    (experiment,) = [found for found in connect().client.search_experiments() if found.name == "tiny"]
    views = [json.loads(value)["state"] for name, value in experiment.tags.items() if "sharedViewState" in name]
    assert views
    for view in views:
        assert b"system/" not in zlib.decompress(base64.b64decode(view.removeprefix("deflate;")))


def test_a_run_that_goes_on_goes_on_with_the_next_step(cifar, tiny_training, sampled, runs, monkeypatch):
    def stop(self, result):
        if result.epoch == 2:
            raise Interrupted(signal.SIGINT)

    monkeypatch.setenv(VARIABLE, "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1000")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", stop)
        assert cifar("train", *tiny_training).code == 130
    assert all(steps == [0] for steps in sampled().values())  # what was sampled until then is kept
    assert cifar("train", "--resume", runs()[0].info.run_id).code == 0
    assert len(sampled()) == len(names_of_mlflow())
    assert all(steps == [0, 1] for steps in sampled().values())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (VARIABLE, "perhaps", VARIABLE),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "often", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "-1", "greater than 0"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "nan", "greater than 0"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "-2", "1 or more"),
        ("MLFLOW_SYSTEM_METRICS_NODE_ID", "a*b", "MLFLOW_SYSTEM_METRICS_NODE_ID"),
        ("MLFLOW_SYSTEM_METRICS_NODE_ID", "n" * 300, "MLFLOW_SYSTEM_METRICS_NODE_ID"),
    ],
)
def test_a_variable_that_will_not_do_is_refused_before_there_is_a_run(
    cifar, tiny_training, runs, monkeypatch, name, value, told
):
    monkeypatch.setenv(VARIABLE, "true")
    monkeypatch.setenv(name, value)
    outcome = cifar("train", *tiny_training)
    assert (outcome.code, runs()) == (2, [])
    assert told in outcome.stderr


def test_sweeps_and_reproductions_ask_for_them_at_once(work, cifar, trained, monkeypatch):
    monkeypatch.setenv(VARIABLE, "perhaps")
    (work / "s.yaml").write_text("name: s\nbase: {dataset: digits, epochs: 1}\nspace: {dropout: [0.0, 0.1]}\n")
    for words in (("sweep", "s.yaml"), ("reproduce", trained.info.run_id), ("train", "--resume", trained.info.run_id)):
        assert (cifar(*words).code, VARIABLE in cifar(*words).stderr) == (2, True)


def points(count, first_step=0):
    """The first points of this machine, and those that `close` adds."""
    logged, warned = [], []
    metrics = SystemMetrics(warned.append)
    metrics.start(lambda *point: logged.append(point), first_step)
    while len(logged) < count and not metrics._fault:
        metrics.write()
    metrics.close()
    return logged, warned


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.001")


def test_each_point_has_the_next_step_and_its_own_time(often):
    logged, warned = points(4, first_step=7)
    assert [step for _, step, _ in logged] == list(range(7, 7 + len(logged)))
    times = [at for *_, at in logged]
    assert (times, warned) == (sorted(times), [])


def test_variables_of_mlflow_name_the_node_and_average_several_samples(often, monkeypatch):
    samples = []
    plain = CPUMonitor.collect_metrics
    monkeypatch.setattr(CPUMonitor, "collect_metrics", lambda self: (samples.append(self), plain(self)))
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_NODE_ID", "node_0")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "3")
    logged, _ = points(2)
    assert "system/node_0/cpu_utilization_percentage" in logged[0][0]
    assert 3 * (len(logged) - 1) < len(samples) - 1 <= 3 * len(logged)  # one before the first, to count from


@pytest.mark.parametrize("when", ["at the beginning", "later"])
def test_a_machine_that_does_not_answer_is_told_of_and_the_training_goes_on(often, monkeypatch, when):
    def broken(self, *arguments):
        raise OSError("no network")

    monkeypatch.setattr(NetworkMonitor, "__init__" if when == "at the beginning" else "collect_metrics", broken)
    logged, warned = [], []
    metrics = SystemMetrics(warned.append)
    metrics.start(lambda *point: logged.append(point))
    metrics.close()
    (told,) = warned
    assert (logged, "OSError: no network" in told) == ([], True)


def test_a_gpu_without_mlflows_package_is_told_of(often, monkeypatch):
    monkeypatch.setattr(system_metrics, "_monitors", lambda: ([CPUMonitor()], False))
    warned = []
    metrics = SystemMetrics(warned.append)
    metrics.start(lambda *point: None, gpu=True)
    metrics.close()
    assert warned == [system_metrics.NO_GPU]


def test_nothing_is_sampled_unless_it_is_asked_for(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    metrics = SystemMetrics(pytest.fail)
    metrics.start(pytest.fail)
    metrics.write()
    metrics.close()
    monkeypatch.setenv(VARIABLE, "2")
    with pytest.raises(ConfigurationError):
        system_metrics.enable(False)
