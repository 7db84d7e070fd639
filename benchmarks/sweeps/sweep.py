"""What a trial of a sweep costs beyond its training: 40 trials of one epoch on digits, on two workers.

    python benchmarks/sweeps/sweep.py [ROUNDS]

Each round, in turn, each in processes and a store (SQLite) of its own, with one thread a process:

- training alone: the same 40 trainings by the learning wing in two processes, which record nothing;
- `cifar-mlflow sweep` with `log_models` off and on: every run with its parameters, metrics, figures, predictions;
- Optuna in one process with n_jobs=2 and its own MLflowCallback, which records parameters and one value a trial. It is
  in optuna-integration (`pip install --no-deps optuna-integration`); without that it is left out, and said so;
- once, at the end: `mlflow run`, two side by side, for four of the trials only, since each takes ten seconds.

The unit is the seconds that one of the two workers spends on a trial: twice the wall-clock time of all, by the number
of trials. Beyond training is that, less the seconds of training alone. The time of a sweep is from when the store says
that its first run began to when the last is told as ended: without the start of the workers and the report at the end,
which are shown apart. A round takes two to five minutes. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import itertools
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
SPACE = {
    "activation": ["relu", "leaky_relu", "prelu", "elu", "silu"],
    "learning_rate": [0.0005, 0.001, 0.002, 0.004],
    "dropout": [0.0, 0.35],
}
TRIALS = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
BASE = {"dataset": "digits", "epochs": 1, "scheduler": "none"}
BOUNDS = {"sweep": 0.5, "sweep with models": 1.2}
SIDES = ("training alone", *BOUNDS, "Optuna's callback")


def environment(directory: str) -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {
        **os.environ,
        **threads,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
        "CIFAR_MLFLOW_STATE": f"{directory}/state",
    }


def training_alone(directory: str) -> float:
    """Seconds of a worker for a trial: two processes, each with every other trial."""
    command = [sys.executable, __file__, "--train"]
    processes = [
        subprocess.Popen([*command, f"{part}"], env=environment(directory), stdout=subprocess.PIPE, text=True)
        for part in range(WORKERS)
    ]
    return sum(float(process.communicate()[0]) for process in processes) / len(TRIALS)


def train_part(part: int) -> float:
    """Seconds in which one process trains its part of the trials, its imports and a first training not counted."""
    from cifar_mlflow.config.rules import resolve
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.data import datasets
    from cifar_mlflow.learning.training import Training

    hardware.keep_freed_memory()  # as a worker of a sweep does
    configs = [resolve({**BASE, "threads": 1, **values}) for values in TRIALS[part::WORKERS]]
    dataset = datasets.load(configs[0])
    list(Training(configs[0], dataset).epochs())
    begun = time.perf_counter()
    for config in configs:
        list(Training(config, dataset).epochs())
    return time.perf_counter() - begun


def sweep(directory: str, log_models: bool) -> tuple[float, float]:
    """Seconds of a worker for a trial, and those of the whole command."""
    spec = {"name": "bench", "base": BASE, "space": SPACE, "workers": WORKERS, "log_models": log_models}
    path = Path(directory) / "spec.yaml"
    path.write_text(json.dumps(spec))  # JSON is YAML
    command = [sys.executable, "-m", "cifar_mlflow", "sweep", str(path)]
    begun = time.time()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(directory), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    ended = 0.0
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(rf"run {len(TRIALS)}/{len(TRIALS)} ", line):
            ended = time.time()
    assert process.wait() == 0, "the sweep failed"
    whole = time.time() - begun
    with contextlib.closing(sqlite3.connect(Path(directory) / "mlflow.db")) as database:
        query = "SELECT count(*), min(start_time) FROM runs JOIN tags USING (run_uuid) WHERE key = 'trial'"
        count, first = database.execute(query).fetchone()
    assert count == len(TRIALS), f"{count} runs were recorded"
    return WORKERS * (ended - first / 1000) / len(TRIALS), whole


def optuna_callback(directory: str) -> float:
    """Seconds of a worker for a trial: here the workers are threads of one process."""
    command = [sys.executable, __file__, "--optuna", f"sqlite:///{directory}/mlflow.db"]
    done = subprocess.run(
        command, cwd=directory, env=environment(directory), check=True, capture_output=True, text=True
    )
    return float(done.stdout.splitlines()[-1])


def optimize(uri: str) -> float:
    import warnings

    import mlflow
    import optuna
    from optuna_integration.mlflow import MLflowCallback

    from cifar_mlflow.config.rules import resolve
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.data import datasets
    from cifar_mlflow.learning.training import Training

    hardware.keep_freed_memory()
    warnings.simplefilter("ignore")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("warm up")
    base = resolve({**BASE, "threads": 1})
    dataset = datasets.load(base)
    list(Training(base, dataset).epochs())
    callback = MLflowCallback(tracking_uri=uri, metric_name="val_accuracy")

    @callback.track_in_mlflow()
    def objective(trial: Any) -> float:
        values = {name: trial.suggest_categorical(name, choices) for name, choices in SPACE.items()}
        *_, last = Training(resolve({**BASE, "threads": 1, **values}), dataset).epochs()
        return float(last.held_out_accuracy)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GridSampler(SPACE, seed=0))
    begun = time.perf_counter()
    study.optimize(objective, n_trials=len(TRIALS), n_jobs=WORKERS, callbacks=[callback])
    return WORKERS * (time.perf_counter() - begun) / len(TRIALS)


def mlflow_runs(directory: str, trials: int = 4) -> float:
    """Seconds of a worker for a trial: `mlflow run` of every tenth trial, two at a time.

    The store and its experiment are made before, so that the first two need not both make them.
    """
    env = environment(directory)
    making = ["mlflow", "experiments", "create", "--experiment-name", "digits"]
    subprocess.run(making, env=env, check=True, capture_output=True)
    begun = time.perf_counter()
    chosen = TRIALS[:: len(TRIALS) // trials]
    for pair in (chosen[first : first + WORKERS] for first in range(0, len(chosen), WORKERS)):
        processes = []
        for values in pair:
            given = {**BASE, "threads": 1, **values}
            words = [word for name, value in given.items() for word in ("-P", f"{name}={value}")]
            command = ["mlflow", "run", str(ROOT), "--env-manager", "local", "--experiment-name", "digits", *words]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            processes.append(subprocess.Popen(command, env=env, **pipes))
        outputs = [process.communicate()[0] for process in processes]
        for process, output in zip(processes, outputs, strict=True):
            if process.returncode:
                sys.exit(f"`mlflow run` ended with {process.returncode}:\n{output}")
    return WORKERS * (time.perf_counter() - begun) / len(chosen)


def measured(side: str) -> tuple[float, float | None]:
    """Seconds of a worker for a trial and, for a sweep, those of the whole command."""
    with tempfile.TemporaryDirectory() as directory:
        if side in BOUNDS:
            return sweep(directory, log_models="models" in side)
        return {"training alone": training_alone, "Optuna's callback": optuna_callback}[side](directory), None


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    sides = list(SIDES)
    if importlib.util.find_spec("optuna_integration") is None:
        print("optuna-integration is not installed: Optuna's own callback is left out")
        sides.remove("Optuna's callback")
    times: dict[str, list[float]] = {side: [] for side in sides}
    print(f"{len(TRIALS)} trials of one epoch on digits, {WORKERS} workers, {rounds} rounds", flush=True)
    for number in range(1, rounds + 1):
        told = []
        for side in sides:
            seconds, whole = measured(side)
            times[side].append(seconds)
            told.append(f"{side} {seconds:.2f} s" + (f" (the command {whole:.0f} s)" if whole else ""))
        print(f"round {number}, a trial: {', '.join(told)}", flush=True)
    from cifar_mlflow.learning import hardware

    beyond = {
        side: [all_of - alone for all_of, alone in zip(times[side], times["training alone"], strict=True)]
        for side in sides[1:]
    }
    for side, seconds_beyond in beyond.items():
        bound = f", at most {BOUNDS[side]} s wanted" if side in BOUNDS else ""
        print(f"{side}: {told_spread(seconds_beyond)} a trial beyond training{bound}")
    import torch

    where = hardware.describe(torch.device("cpu"))
    print(
        f"n={rounds} rounds of {len(TRIALS)} trials; training {told_spread(times['training alone'])}; beyond it "
        + ", ".join(f"{side} {told_spread(values)}" for side, values in beyond.items())
        + f"; {where}; {datetime.date.today()}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as directory:
        print(f"mlflow run, a trial: {mlflow_runs(directory):.1f} s (four trials, once)")


def told_spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        print(train_part(int(sys.argv[2])))
    elif sys.argv[1:2] == ["--optuna"]:
        print(optimize(sys.argv[2]))
    else:
        main()
