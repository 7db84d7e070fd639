"""The thread that samples how busy the machine is keeps no process alive, and ends with the run."""

import threading

from cifar_mlflow.tracking.writing import system_metrics
from cifar_mlflow.tracking.writing.system_metrics import SystemMetrics


def test_it_ends_with_its_process_and_with_its_run(monkeypatch):
    monkeypatch.setenv(system_metrics.VARIABLE, "true")
    monkeypatch.setattr(system_metrics, "_monitors", lambda: ([], True))
    metrics = SystemMetrics(lambda warning: None)
    metrics.start(lambda *point: None)
    (thread,) = [each for each in threading.enumerate() if each.name == system_metrics.THREAD]
    assert thread.daemon
    metrics.close()
    assert not thread.is_alive()
