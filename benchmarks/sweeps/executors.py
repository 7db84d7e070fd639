"""What it costs to have trials done elsewhere, and to have many done: no training in it.

    python benchmarks/sweeps/executors.py [cluster|driver]

cluster: 64 tasks of two seconds of sleep on four slots, by processes of this machine and by actors on a Ray cluster of
two nodes on this machine (that of the tests; needs `cifar-mlflow[ray]`). Ideal are 64 * 2 / 4 = 32 seconds; the start
of the workers is shown apart. The executor's own cost a trial is what each slot loses by it.

driver: a sweep of 4,000 trials by 1,000 simulated workers, which answer at once, with the real plan and study (Optuna,
with its journal): the processor time of the driver a trial, and its memory after each thousand.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "benchmarks" / "sweeps"),
    str(ROOT / "tests"),
    str(ROOT / "tests" / "tuning" / "executors"),
]
TASKS, SECONDS, SLOTS = 64, 2.0, 4
TRIALS, WORKERS = 4000, 1000


def sleep(seconds: float, tell: Any) -> float:
    time.sleep(seconds)
    return seconds


def nothing() -> None:
    pass


def work_through(executor: Any) -> float:
    """Seconds that all tasks took."""
    began, given, ended = time.monotonic(), 0, 0
    while ended < TASKS:
        while executor.idle and given < TASKS:
            executor.submit(given, SECONDS)
            given += 1
        for event in executor.events(timeout=1.0):
            assert event.kind == "done", event
            ended += 1
    return time.monotonic() - began


def report(name: str, started: float, seconds: float) -> None:
    ideal = TASKS * SECONDS / SLOTS
    own = (seconds - ideal) * SLOTS / TASKS
    print(
        f"{name:10} start {started:5.1f} s, {TASKS} tasks {seconds:6.2f} s, {seconds / ideal:.3f} of the ideal, ",
        end="",
    )
    print(f"{1000 * own:.0f} ms a trial", flush=True)


def on_cluster(directory: Path) -> None:
    import executors
    import ray_nodes

    from cifar_mlflow.tuning import ray_cluster
    from cifar_mlflow.tuning.process_executor import ProcessExecutor
    from cifar_mlflow.tuning.ray_executor import RayExecutor

    log, began = directory / "workers.log", time.monotonic()
    with ProcessExecutor(SLOTS, 1, executors.sleep, executors.nothing, log) as executor:
        while not executor.ready:
            list(executor.events(0.1))
        started = time.monotonic() - began
        report("processes", started, work_through(executor))
    with ray_nodes.cluster() as nodes:
        os.environ.update(nodes.environment)
        code = {"executors.py": Path(__file__).read_bytes()}
        with contextlib.closing(ray_cluster.connect(nodes.address, directory / "ray.log", code)):
            began = time.monotonic()
            with RayExecutor(SLOTS, 1, 0.0, executors.sleep, executors.nothing, executors.nothing, log) as executor:
                report("Ray", time.monotonic() - began, work_through(executor))


class Simulated:
    """Workers that have each trained at once, and tell of an epoch before they end."""

    def __init__(self, count: int) -> None:
        self.idle, self._ended, self._told = count, 0, deque[tuple[Any, Any]]()
        self._process, self._began = __import__("psutil").Process(), time.process_time()

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *ending: object) -> None:
        pass

    def submit(self, task_id: Any, argument: Any) -> None:
        self.idle -= 1
        self._told.append((task_id, argument))

    def answer(self, event: Any, go_on: bool) -> None:
        pass

    def events(self, timeout: float) -> Any:
        from cifar_mlflow.jobs.sweeping.worker import Sample
        from cifar_mlflow.records import TrialOutcome
        from cifar_mlflow.tuning.executors import Event

        for _ in range(min(len(self._told), WORKERS // 4)):
            task_id, argument = self._told.popleft()
            self.idle += 1
            if isinstance(argument, Sample):
                yield Event("done", task_id, 1000.0, None)
                continue
            yield Event("event", task_id, (1, 50.0), None)
            yield Event("done", task_id, TrialOutcome("FINISHED", 50.0 + hash(task_id) % 1000 / 50, images=100), None)
            self._count()

    def _count(self) -> None:
        self._ended += 1
        if self._ended % 1000 == 0:
            now, memory = time.process_time(), self._process.memory_info().rss / 2**20
            print(f"{self._ended:5} trials: {now - self._began:6.3f} ms a trial of the last 1,000, {memory:.0f} MiB")
            self._began = now


class Room:
    """The place of simulated workers."""

    name, room, measured_here = "process", "simulated", False

    def most_workers(self, spec: Any) -> int:
        return WORKERS

    def executor(self, spec: Any, workers: int, *rest: Any) -> Simulated:
        return Simulated(workers)


class Nowhere:
    """Where nothing is recorded."""

    def renew(self) -> None:
        pass

    def ended(self, planned: Any, outcome: Any) -> None:
        pass


def of_driver(directory: Path) -> None:
    from cifar_mlflow.config.sweep import parse_spec
    from cifar_mlflow.jobs.sweeping import trial
    from cifar_mlflow.jobs.sweeping.driver import Driver
    from cifar_mlflow.jobs.sweeping.plan import Plan
    from cifar_mlflow.tuning.study import TuningStudy

    space = {"learning_rate": {"low": 0.0001, "high": 1.0, "log": True}, "dropout": {"low": 0.0, "high": 0.9}}
    values = {"name": "many", "base": {"dataset": "digits"}, "space": space, "sampler": "random", "trials": TRIALS}
    spec = parse_spec(values, directory)
    digests = trial.digests(trial.settings(spec.base_config))
    study = TuningStudy(spec, directory / "journal.log")
    plan = Plan(spec, study, lambda config: config.run_fingerprint(*digests), [])
    tags = {"mlflow.parentRunId": "parent", "sweep_id": "sweep"}
    began = time.process_time()
    driver = Driver(spec, "many", tags, directory / "workers.log", Nowhere(), Room(), offline=False)  # type: ignore[arg-type]
    driver.train(plan)
    each = 1000 * (time.process_time() - began) / TRIALS
    print(f"{TRIALS:,} trials, {WORKERS:,} workers: {each:.2f} ms of the driver's processor time a trial", flush=True)


if __name__ == "__main__":
    sides = {"cluster": on_cluster, "driver": of_driver}
    for name in sys.argv[1:] or sides:
        with tempfile.TemporaryDirectory() as temporary:
            sides[name](Path(temporary))
