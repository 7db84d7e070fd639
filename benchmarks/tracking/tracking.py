"""What tracking costs a training: to sqlite, to a local server and to one 200 ms away, against none at all.

    CIFAR_MLFLOW_DATA=... python benchmarks/tracking/tracking.py [ROUNDS]

Each round first measures an epoch of CIFAR-10 (50,000 images, and the evaluation, with no tracking), which is what
costs are set against. Then the same training of EPOCHS epochs of 12,500 images goes without tracking and to each of
the stores, each in a process of its own, in turn, with all cores: a cost that is paid once an epoch is the same for a
short epoch. Counted are, for each epoch, the wall-clock seconds that the training's thread spends in calls of the
recorder, and the processor seconds of all other Python threads of the process: the courier, and whatever threads
MLflow starts (torch's own are none of Python's). The sum is an upper bound of what the epoch loses; the first epoch
also bears the delivery of what is written before it (parameters, tags, dataset, config.yaml). What a run costs beyond
its epochs is told apart: to begin it, and from the last epoch to the end (figures, two exported models, waiting until
all has arrived). The server is `mlflow server` on the same machine, whose processor time is not counted; the one far
away is the same server behind a proxy that holds back all that passes for 100 ms in each direction, and a connection
for a round trip. A round takes about 3 minutes. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from far_away import far_away, server

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, IMAGES = 4, 12_500
STORES = ("sqlite", "server", "200 ms away")


def untracked(epochs: int, images: int) -> dict[str, Any]:
    """Seconds of each epoch of a training that nobody records."""
    from cifar_mlflow.jobs.listener import current_listener
    from cifar_mlflow.learning.training import Training

    config, dataset = training(epochs, images)
    current_listener().computing()
    session = Training(config, dataset)
    seconds = []
    begun = time.perf_counter()
    for _ in session.epochs():
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return {"epochs": seconds}


def tracked(epochs: int, images: int) -> dict[str, Any]:
    """As `untracked`, recorded as `train` does, with the costs of each epoch."""
    from cifar_mlflow.jobs.train import record_training
    from cifar_mlflow.tracking import store as tracking_store
    from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder

    config, dataset = training(epochs, images)
    store = tracking_store.connect()
    clock = Clock()

    def start() -> Any:
        return clock.timed(SpooledRecorder.start(store, "benchmark", "tracking", {"kind": "single"}))

    begun = time.perf_counter()
    record_training(config, dataset, start, clock)
    ended = time.perf_counter()
    return {
        "epochs": clock.seconds,
        "blocked": clock.blocked,
        "processor": clock.processor,
        "begin": clock.started - begun,
        "end": ended - clock.last,
    }


def training(epochs: int, images: int) -> Any:
    from cifar_mlflow.config.rules import resolve
    from cifar_mlflow.learning.data import datasets

    config = resolve({"epochs": epochs, "scheduler": "none"})
    dataset = datasets.load(config)
    # Trained on all but the validation images, the epoch would be a tenth short of the 50,000 of CIFAR-10.
    everything = datasets.load(config.model_copy(update={"validation_size": 0}))
    return config, replace(dataset, train=everything.train.first(images))


class Clock:
    """The training's listener: what each epoch took, was blocked for, and cost in other threads."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.blocked: list[float] = []
        self.processor: list[float] = []
        self.started = self.last = 0.0
        self._inside = self._spent = 0.0
        self._threads: dict[int, float] = {}

    def timed(self, run: Any) -> Any:
        """The recorder, each of whose calls is timed."""
        return _Timed(run, self._called)

    def _called(self, seconds: float) -> None:
        self._inside += seconds

    def recording(self, run: Any) -> None:
        pass

    def step(self, images: int, steps: int) -> None:
        if not self.started:  # the first epoch began with this step, before which all of the run's beginning lies
            self.started = self.last = time.perf_counter()
            self._inside = 0.0

    def epoch(self, result: Any) -> None:
        now, spent = time.perf_counter(), self._others()
        self.seconds.append(now - self.last)
        self.blocked.append(self._inside)
        self.processor.append(spent - self._spent)
        self.last, self._inside, self._spent = now, 0.0, spent

    def _others(self) -> float:
        """Processor seconds so far of all Python threads but the training's; of one that ended, when last seen."""
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and thread.ident:
                with contextlib.suppress(OSError):
                    self._threads[thread.ident] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        return sum(self._threads.values())


class _Timed:
    def __init__(self, run: Any, called: Callable[[float], None]) -> None:
        self._run, self._called = run, called

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._run, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return attribute(*arguments, **options)
            finally:
                self._called(time.perf_counter() - begun)

        return call


# ------------------------------------------------------------------------------------------------ the measurements


def measured(side: str, epochs: int, images: int, uri: str = "") -> dict[str, Any]:
    """What one side came to, in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CIFAR_MLFLOW_STATE": f"{directory}/state",
            "MLFLOW_TRACKING_URI": uri or f"sqlite:///{directory}/mlflow.db",
        }
        command = [sys.executable, __file__, side, str(epochs), str(images), str(result)]
        subprocess.run(command, check=True, env=environment, capture_output=True)
        measured: dict[str, Any] = json.loads(result.read_text())
        return measured


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    costs: dict[str, dict[str, list[float]]] = {
        store: {name: [] for name in ("first", "later", "begin", "end", "slower")} for store in STORES
    }
    whole = []
    with tempfile.TemporaryDirectory() as directory, server(Path(directory)) as near, far_away(near) as far:
        addresses = dict(zip(STORES, ("", near, far), strict=True))
        for number in range(1, rounds + 1):
            whole.append(measured("untracked", 2, 50_000)["epochs"][-1])  # the first warms up
            plain = measured("untracked", EPOCHS, IMAGES)["epochs"]
            told = f"an epoch of CIFAR-10 {whole[-1]:.1f} s, of {IMAGES:,} images {plain[-1]:.1f} s"
            print(f"round {number}: {told}", flush=True)
            for store, address in addresses.items():
                took = measured("tracked", EPOCHS, IMAGES, address)
                lost = [100 * (sum(each) / whole[-1]) for each in zip(took["blocked"], took["processor"], strict=True)]
                costs[store]["first"].append(lost[0])
                costs[store]["later"] += lost[1:]
                costs[store]["begin"].append(took["begin"])
                costs[store]["end"].append(took["end"])
                costs[store]["slower"].append(sum(took["epochs"][1:]) / sum(plain[1:]))
                told = ", ".join(
                    f"{1000 * blocked:.0f} + {1000 * processor:.0f}"
                    for blocked, processor in zip(took["blocked"], took["processor"], strict=True)
                )
                print(
                    f"  {store}: blocked + processor time in ms, by epoch: {told}; "
                    f"{took['begin']:.1f} s to begin, {took['end']:.1f} s to end",
                    flush=True,
                )
    for store, cost in costs.items():
        print(
            f"{store}: {spread(cost['later'], '%', 2)} of an epoch of CIFAR-10, "
            f"the first {spread(cost['first'], '%', 2)}; "
            f"not counted: {spread(cost['begin'], ' s', 1)} to begin, {spread(cost['end'], ' s', 1)} to end; "
            f"epochs tracked / untracked {spread(cost['slower'], '', 2)}"
        )
    print(last_line(rounds, whole, costs))


def spread(values: list[float], unit: str, digits: int) -> str:
    """The median, and the range."""
    told = [f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return f"{told[0]}{unit} ({told[1]} to {told[2]})"


def last_line(rounds: int, whole: list[float], costs: dict[str, dict[str, list[float]]]) -> str:
    """What docs/explanation/performance.md takes over."""
    import torch

    from cifar_mlflow.learning import hardware

    told = "; ".join(
        f"{store} {spread(cost['later'], '%', 2)}, first epoch {spread(cost['first'], '%', 2)}"
        for store, cost in costs.items()
    )
    return (
        f"tracking, share of an epoch of CIFAR-10 ({spread(whole, ' s', 1)}), "
        f"n={rounds} runs of {EPOCHS} epochs: {told}; "
        f"{hardware.describe(torch.device('cpu'))}, {datetime.date.today()}"
    )


if __name__ == "__main__":
    if len(sys.argv) == 5:
        from cifar_mlflow.jobs.console import OwnProcess
        from cifar_mlflow.jobs.listener import listen

        listen(OwnProcess())  # as the command line does
        side, epochs, images, result = sys.argv[1:]
        measure = tracked if side == "tracked" else untracked
        Path(result).write_text(json.dumps(measure(int(epochs), int(images))))
    else:
        main()
