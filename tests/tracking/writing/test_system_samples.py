"""The sampler of system metrics, with monitors of the test's own: what is averaged, and to which step."""

import os
import threading

import pytest

from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.tracking.writing import system_metrics
from cifar_mlflow.tracking.writing.system_metrics import SystemMetrics

INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
SAMPLES = "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"
NODE = "MLFLOW_SYSTEM_METRICS_NODE_ID"


class Monitor:
    """Collects how often it was asked."""

    def __init__(self, name, failing_at=None):
        self.name, self.asked, self.collected, self.failing_at = name, 0, [], failing_at

    def collect_metrics(self):
        self.asked += 1
        if self.asked == self.failing_at:
            raise OSError("the driver hangs")
        self.collected.append(self.asked)

    def aggregate_metrics(self):
        return {self.name: sum(self.collected) / len(self.collected)}

    def clear_metrics(self):
        self.collected.clear()


@pytest.fixture
def sampled(monkeypatch):
    """Samples in turns that the test gives; `run.turn()` waits until one more sample is taken."""
    monkeypatch.setenv(system_metrics.VARIABLE, "true")
    warned, logged = [], []

    class Run:
        monitors = (Monitor("a"), Monitor("b"))
        gpu = True
        closing = False

        def start(self, **options):
            self.turns, self.taken = threading.Semaphore(0), threading.Semaphore(0)
            monkeypatch.setattr(system_metrics, "_monitors", lambda: (self.monitors, self.gpu))
            monkeypatch.setattr(SystemMetrics, "_goes_on", self.goes_on)
            self.metrics = SystemMetrics(warned.append)
            self.metrics.start(lambda *point: logged.append(point), **options)
            self.taken.acquire(timeout=30)
            return self.metrics

        def goes_on(self, seconds):
            self.waits = seconds
            self.taken.release()
            self.turns.acquire(timeout=30)
            return not self.closing

        def turn(self):
            self.turns.release()
            assert self.taken.acquire(timeout=30)

        def close(self):
            self.closing = True
            self.turns.release()
            self.metrics.close()

        def points(self):
            return [(point, step) for point, step, _ in logged]

    run = Run()
    run.warned, run.logged = warned, logged
    return run


def test_each_sample_is_a_point_at_the_next_step(sampled):
    metrics = sampled.start()
    for _ in range(2):
        sampled.turn()
    assert sampled.logged == []  # it is written by the thread that writes all else
    metrics.write()
    # The first question of all says nothing yet.
    assert sampled.points() == [({"system/a": 2.0, "system/b": 2.0}, 0), ({"system/a": 3.0, "system/b": 3.0}, 1)]
    sampled.close()
    assert sampled.points()[2:] == [({"system/a": 4.0, "system/b": 4.0}, 2)]
    assert (sampled.waits, sampled.warned) == (10.0, [])


def test_samples_are_averaged_and_the_steps_go_on(sampled, monkeypatch):
    monkeypatch.setenv(SAMPLES, "3")
    monkeypatch.setenv(INTERVAL, "0.5")
    monkeypatch.setenv(NODE, "n1")
    sampled.start(first_step=7)
    for _ in range(4):
        sampled.turn()
    sampled.close()
    # Of the last point there were two.
    assert sampled.points() == [
        ({"system/n1/a": 3.0, "system/n1/b": 3.0}, 7),
        ({"system/n1/a": 5.5, "system/n1/b": 5.5}, 8),
    ]
    assert sampled.waits == 0.5


def test_a_monitor_that_fails_ends_the_sampling_and_is_told_at_the_end(sampled):
    sampled.monitors = (Monitor("a"), Monitor("b", failing_at=3))
    sampled.start()
    sampled.turn()
    sampled.close()
    assert sampled.points() == [({"system/a": 2.0, "system/b": 2.0}, 0)]
    assert sampled.warned == ["the system metrics of the run are not complete (OSError: the driver hangs)"]
    sampled.metrics.close()
    assert len(sampled.warned) == 1


@pytest.mark.parametrize(
    ("training_on", "found", "told"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_gpu_that_is_not_sampled_is_told(sampled, training_on, found, told):
    sampled.gpu = found
    sampled.start(gpu=training_on)
    sampled.close()
    assert sampled.warned == [system_metrics.NO_GPU] * told


def test_a_machine_that_cannot_be_sampled_is_told(sampled, monkeypatch):
    def fail():
        raise OSError("no network")

    metrics = SystemMetrics(sampled.warned.append)
    monkeypatch.setattr(system_metrics, "_monitors", fail)
    metrics.start(lambda *point: None)
    metrics.close()
    assert sampled.warned == ["no system metrics can be sampled here (OSError: no network)"]


def test_closing_ends_the_wait(monkeypatch):
    monkeypatch.setenv(system_metrics.VARIABLE, "true")
    monkeypatch.setenv(INTERVAL, "3600")
    monkeypatch.setattr(system_metrics, "_monitors", lambda: ([Monitor("a")], True))
    logged = []
    metrics = SystemMetrics(logged.append)
    metrics.start(lambda *point: logged.append(point))
    thread = metrics._thread
    metrics.close()
    assert (thread.is_alive(), len(logged)) == (False, 1)
    monkeypatch.setenv(INTERVAL, "0.001")
    assert SystemMetrics(logged.append)._goes_on(0.001)


def test_this_machine_has_a_processor_a_disk_and_a_network():
    monitors, _ = system_metrics._monitors()
    for monitor in monitors:
        monitor.collect_metrics()
    names = {name for monitor in monitors for name in monitor.aggregate_metrics()}
    assert {"cpu_utilization_percentage", "disk_usage_percentage", "network_receive_megabytes"} <= names


def test_unasked_nothing_is_done(monkeypatch):
    for value in (None, "false"):
        monkeypatch.delenv(system_metrics.VARIABLE, raising=False)
        if value:
            monkeypatch.setenv(system_metrics.VARIABLE, value)
        system_metrics.enable(False)
        metrics = SystemMetrics(pytest.fail)
        metrics.start(pytest.fail, gpu=True)
        metrics.write()
        metrics.close()
        assert metrics._thread is None


def test_it_is_asked_for_those_that_are_started_too(monkeypatch):
    monkeypatch.delenv(system_metrics.VARIABLE, raising=False)
    system_metrics.enable(True)
    assert os.environ[system_metrics.VARIABLE] == "true"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({system_metrics.VARIABLE: "perhaps"}, "must be one of"),
        ({INTERVAL: "often"}, INTERVAL),
        ({INTERVAL: "-1"}, f"{INTERVAL}=-1.0: it must be a number of seconds, greater than 0"),
        ({INTERVAL: "nan"}, "it must be a number of seconds"),
        ({INTERVAL: "1e300"}, "it must be a number of seconds"),
        ({SAMPLES: "-1"}, f"{SAMPLES}=-1: it must be a whole number, 1 or more"),
        ({SAMPLES: "1.5"}, SAMPLES),
        ({NODE: "a*b"}, "Invalid"),
        ({NODE: "x" * 300}, f"{NODE} is refused: it has 308 characters"),
        ({INTERVAL: "-1", SAMPLES: "-1"}, "2 faults in the environment"),
    ],
)
def test_values_that_will_not_do(monkeypatch, variables, told):
    for name, value in {system_metrics.VARIABLE: "true", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"(?s)fault.*environment") as raised:
        system_metrics.enable(False)
    assert told in str(raised.value)
