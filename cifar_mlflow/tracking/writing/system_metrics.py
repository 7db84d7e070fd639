"""MLflow's system metrics of a run: how busy processor, memory, disk, network and GPUs were while it trained.

MLflow's own monitors take the samples, under MLflow's own names and variables. Its thread would write them to the
store by itself; here a thread samples, and the training's own takes what there is to the outbox, since no two threads
may append to that.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_mlflow import process_state
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import NAME_LIMIT, fault, first_line

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

PREFIX = "system/"
VARIABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
NO_GPU = "the system metrics leave out the GPU: MLflow needs nvidia-ml-py for NVIDIA's, pyrsmi for AMD's"
THREAD = "system metrics"
PATIENCE = 5.0  # seconds for a sample to be taken, which takes a millisecond unless a driver hangs

Log = Callable[[Mapping[str, float], int, int], None]
"""Writes metrics at a step and a time in milliseconds."""


@dataclass(frozen=True)
class _Settings:
    """MLflow's own, with its defaults: seconds between two samples, and how many are averaged to one point."""

    interval: float
    samples: int
    prefix: str


def enable(wanted: bool) -> None:
    """Has the trainings of this job sampled, those in its worker processes too; else MLflow's own variable decides.

    Raises:
        ConfigurationError: a variable of MLflow's that says whether or how to sample has a value that will not do.
    """
    if wanted:
        process_state.set_variable(VARIABLE, "true")
    _settings()


class SystemMetrics:
    """The system metrics of one run. If they are not asked for, all methods do nothing."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """`warn` is told what cannot be sampled. Raises ConfigurationError as `enable` does."""
        self._settings, self._warn = _settings(), warn
        # Written in C: a signal's exception cannot leave their locks taken.
        self._points: queue.SimpleQueue[tuple[dict[str, float], int, int]] = queue.SimpleQueue()
        self._ends: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._fault = ""

    def start(self, log: Log, first_step: int = 0, *, gpu: bool = False) -> None:
        """Samples from now on, for `log`, to steps from `first_step` on; `gpu` says that the training is on one."""
        if self._settings is None:
            return
        self._log = log
        try:
            monitors, with_gpu = _monitors()
        except Exception as error:  # such as a machine without a network
            self._warn(f"no system metrics can be sampled here ({type(error).__name__}: {error})")
            return
        if gpu and not with_gpu:
            self._warn(NO_GPU)
        arguments = monitors, self._settings, first_step
        self._thread = threading.Thread(target=self._sample, args=arguments, name=THREAD, daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Logs what was sampled since the last call; to be called by the thread that writes all else of the run."""
        while not self._points.empty():
            self._log(*self._points.get())

    def close(self) -> None:
        """Samples for the last time, and logs the rest."""
        if self._thread is None:
            return
        self._ends.put(None)
        self._thread.join(PATIENCE)
        self._thread = None
        self.write()
        if self._fault:
            self._warn(f"the system metrics of the run are not complete ({self._fault})")

    def _sample(self, monitors: Sequence[BaseMetricsMonitor], settings: _Settings, step: int) -> None:
        try:
            for monitor in monitors:  # psutil counts how busy the processor is from a thread's first question on
                monitor.collect_metrics()
                monitor.clear_metrics()
            going_on = True
            while going_on:
                for _ in range(settings.samples):
                    going_on = going_on and self._goes_on(settings.interval)
                    for monitor in monitors:
                        monitor.collect_metrics()
                    if not going_on:
                        break
                point: dict[str, float] = {}
                for monitor in monitors:
                    values = monitor.aggregate_metrics()
                    point |= {settings.prefix + name: value for name, value in values.items()}
                    monitor.clear_metrics()
                self._points.put((point, step, int(time.time() * 1000)))
                step += 1
        except Exception as error:  # whatever the system or a driver answers, the training goes on
            self._fault = f"{type(error).__name__}: {error}"

    def _goes_on(self, seconds: float) -> bool:
        """Waits so long; false at once when `close` is called."""
        with suppress(queue.Empty):
            self._ends.get(timeout=seconds)
            return False
        return True


def _monitors() -> tuple[list[BaseMetricsMonitor], bool]:
    """Those of MLflow that this machine has a use for, and whether there is one of a GPU among them."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for of_gpus in (GPUMonitor, ROCMMonitor):
        with suppress(Exception):  # it has no such package, driver or GPU
            return [*monitors, of_gpus()], True
    return monitors, False


def _settings() -> _Settings | None:
    if VARIABLE not in os.environ:  # importing MLflow takes a second
        return None
    from mlflow import environment_variables as variables
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_metric_name

    interval, samples, node = (
        variables.MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
        variables.MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING,
        variables.MLFLOW_SYSTEM_METRICS_NODE_ID,
    )
    try:
        if not variables.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
            return None
        prefix = f"{PREFIX}{node.get()}/" if node.get() else PREFIX
        settings = _Settings(interval.get() or 10.0, samples.get() or 1, prefix)
        _validate_metric_name(f"{prefix}cpu_utilization_percentage", node.name)
    except (ValueError, MlflowException) as error:
        raise ConfigurationError(first_line(error), "environment") from None
    faults = []
    if not 0 < settings.interval <= threading.TIMEOUT_MAX:
        faults.append(f"{interval.name}={interval.get()}: it must be a number of seconds, greater than 0")
    if settings.samples < 1:
        faults.append(f"{samples.name}={samples.get()}: it must be a whole number, 1 or more")
    if told := fault(prefix, NAME_LIMIT):
        faults.append(f"{node.name} is refused: {told}")
    if faults:
        raise ConfigurationError(faults, "environment")
    return settings
