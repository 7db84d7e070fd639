"""Where the trials of a sweep are trained: in processes of this machine, or on the nodes of a Ray cluster."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import writable
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.training import data
from cifar_mlflow.jobs.training.neighbours import cores
from cifar_mlflow.text import count
from cifar_mlflow.tuning.executors import Executor, Task
from cifar_mlflow.tuning.process_executor import ProcessExecutor

if TYPE_CHECKING:
    from cifar_mlflow.tuning.ray_cluster import Cluster

ExecutorName = Literal["process", "ray"]


class Place(Protocol):
    """Where there is room for workers. `name` is that of the executor; `room` says what there is."""

    name: ExecutorName
    room: str
    measured_here: bool
    """Whether this process is as fast as a worker, and may try it."""

    def most_workers(self, spec: SweepConfig) -> int:
        """For how many workers of the spec there is room, whatever it asks for; at least 1."""

    def executor(
        self, spec: SweepConfig, workers: int, task: Task, prepare: Callable[[], None], log: Path, preload: list[str]
    ) -> Executor:
        """The workers, to be entered."""


def workers(spec: SweepConfig, place: Place) -> int:
    """The workers that the spec asks for, as far as there is room for them."""
    most = place.most_workers(spec)
    return most if spec.workers == "auto" else min(spec.workers, most)


class Here:
    """This machine: its GPUs, if the trainings take one, else its cores."""

    name: ExecutorName = "process"

    def __init__(self, spec: SweepConfig) -> None:
        self._gpus = gpus(spec.base_config)
        self.measured_here = not self._gpus  # on a GPU, this process would hold memory of it to the end
        self.room = count(len(self._gpus), "GPU") if self._gpus else count(cores(), "core")

    def most_workers(self, spec: SweepConfig) -> int:
        if self._gpus:
            return len(self._gpus) * _on_one(spec)
        return max(1, cores() // spec.threads)

    def executor(
        self, spec: SweepConfig, workers: int, task: Task, prepare: Callable[[], None], log: Path, preload: list[str]
    ) -> Executor:
        devices = [self._gpus[number % len(self._gpus)] for number in range(workers)] if self._gpus else []
        return ProcessExecutor(workers, spec.threads, task, prepare, log, preload, devices)


class OnRay:
    """The nodes of a cluster."""

    name: ExecutorName = "ray"
    measured_here = False

    def __init__(self, spec: SweepConfig, cluster: "Cluster") -> None:
        cpus, gpus = cluster.resources()
        wants = spec.base_config.device == "cuda" or (spec.base_config.device == "auto" and gpus >= 1)
        self._cpus, self._gpus = cpus, gpus if wants else 0.0
        told = f" and {count(int(gpus), 'GPU')}" if wants else ""
        self.room = f"{count(int(cpus), 'CPU')}{told} free in the cluster"
        if cpus < spec.threads or (wants and gpus < spec.gpus_per_worker):
            each = f"{count(spec.threads, 'CPU')}{f' and {spec.gpus_per_worker:g} GPUs' if wants else ''}"
            raise ConfigurationError(f"a worker needs {each}, and there are {self.room}; wait, or add nodes", "cluster")

    def most_workers(self, spec: SweepConfig) -> int:
        by_cpus = int(self._cpus // spec.threads)
        return max(1, min(by_cpus, int(self._gpus) * _on_one(spec)) if self._gpus else by_cpus)

    def executor(
        self, spec: SweepConfig, workers: int, task: Task, prepare: Callable[[], None], log: Path, preload: list[str]
    ) -> Executor:
        from cifar_mlflow.tuning.ray_executor import RayExecutor

        share, check = spec.gpus_per_worker if self._gpus else 0.0, functools.partial(data.check, spec.base_config)
        return RayExecutor(workers, spec.threads, share, task, check, prepare, log, preload)


def refuse_together(executor: ExecutorName, address: str | None, others: list[str]) -> None:
    """Raises ConfigurationError for options that have no effect; `others` are those that were given besides."""
    faults = [
        f"--{name}: not with --executor ray, which needs no parts, and trains where the cluster has room"
        for name in (others if executor == "ray" else [])
    ]
    if address and executor != "ray":
        faults.append("--ray-address: it has no effect without --executor ray")
    if faults:
        raise ConfigurationError(faults, "options")


@contextmanager
def opened(spec: SweepConfig, executor: ExecutorName, address: str | None) -> Iterator[Place]:
    """The place; a cluster is left at the end. Raises as `ray_cluster.connect`."""
    if executor == "process":
        yield Here(spec)
        return
    from cifar_mlflow.tuning import ray_cluster

    log = writable("sweeps") / f"ray-{spec.name}.log"
    with closing(ray_cluster.connect(address, log, own_code(spec))) as cluster:
        yield OnRay(spec, cluster)


def own_code(spec: SweepConfig) -> dict[str, bytes]:
    """The files of all networks of the user's own, by their path; what is installed is so on the workers too."""
    from cifar_mlflow.learning.networks import source

    varied = spec.space.get("network")
    files: dict[str, bytes] = {}
    for network in varied.choices() if varied else [spec.base_config.network]:
        found = source.of(str(network))
        if found and "requirements.txt" not in found.files:
            files |= found.files
    return files


def gpus(config: TrainingConfig) -> list[str]:
    """The GPUs of this machine that a training by `config` may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    from cifar_mlflow.learning import hardware

    if hardware.choose_device(config).type != "cuda":
        return []
    there = torch.cuda.device_count()
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[:there] or list(map(str, range(there)))


def _on_one(spec: SweepConfig) -> int:
    """The workers that share a GPU."""
    return int(1 / spec.gpus_per_worker + 1e-9)
