"""How long a command takes to answer, against what its imports alone take.

    python benchmarks/learning/start.py [ROUNDS]

Each round, in turn, each as a process of its own, in seconds from its start:

- `python -c "import torch, mlflow"` to its end, the reference;
- `python -c "import mlflow"` and `cifar-mlflow --help` to their end;
- `cifar-mlflow list` of what the other commands have left in the store, to its end;
- `cifar-mlflow train --dataset digits` to the end of its first optimizer step, where it is ended;
- `mlflow run` of a project that does nothing, to its end: MLflow's own start;
- `mlflow run . --env-manager local -P dataset=digits` to the first optimizer step.

The store (SQLite) has been made before. The first step is seen by a sitecustomize.py that the child finds on its
PYTHONPATH: it registers a hook with torch when the training module is imported, and nothing before. A round takes half
a minute. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOOK = '''
import os
import sys
import time


class AtTraining:
    """Sees the import of the training module, and has torch tell of the first step."""

    def find_spec(self, name, path, target=None):
        if name == "cifar_mlflow.learning.training":
            sys.meta_path.remove(self)
            from torch.optim.optimizer import register_optimizer_step_post_hook

            register_optimizer_step_post_hook(first_step)


def first_step(*arguments):
    with open(os.environ["FIRST_STEP"], "w") as file:
        file.write(repr(time.time()))
    os._exit(0)


sys.meta_path.insert(0, AtTraining())
'''
EMPTY_PROJECT = "name: empty\nentry_points:\n  main:\n    command: 'true'\n"
REFERENCE, MLFLOW, HELP, LIST, TRAIN, EMPTY_RUN, RUN = (
    "import torch, mlflow",
    "import mlflow",
    "--help",
    "list",
    "train",
    "mlflow run of nothing",
    "mlflow run",
)
MOST_OF_IMPORTS, MOST_TO_ANSWER = 1.3, 0.5


def seconds(command: list[str], directory: Path, env: Mapping[str, str], to_first_step: bool) -> float:
    """From the start of the command to its end, or to the first optimizer step in it or its child."""
    told = directory / "first_step"
    told.unlink(missing_ok=True)
    begun = time.time()
    subprocess.run(command, cwd=ROOT, env={**env, "FIRST_STEP": str(told)}, check=True, capture_output=True)
    return float(told.read_text()) - begun if to_first_step else time.time() - begun


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "sitecustomize.py").write_text(HOOK)
        (directory / "empty").mkdir()
        (directory / "empty" / "MLproject").write_text(EMPTY_PROJECT)
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
            "CIFAR_MLFLOW_STATE": f"{directory}/state",
        }
        ours, local = [sys.executable, "-m", "cifar_mlflow"], ["--env-manager", "local", "--experiment-name", "digits"]
        commands = {
            REFERENCE: [sys.executable, "-c", REFERENCE],
            MLFLOW: [sys.executable, "-c", MLFLOW],
            HELP: [*ours, "--help"],
            LIST: [*ours, "list"],
            TRAIN: [*ours, "train", "--dataset", "digits"],
            EMPTY_RUN: ["mlflow", "run", str(directory / "empty"), *local],
            RUN: ["mlflow", "run", str(ROOT), *local, "-P", "dataset=digits"],
        }
        subprocess.run([*ours, "check"], cwd=ROOT, env=env, check=True, capture_output=True)
        times: dict[str, list[float]] = {side: [] for side in commands}
        for number in range(1, rounds + 1):
            for side, command in commands.items():
                times[side].append(seconds(command, directory, env, side in (TRAIN, RUN)))
            told = ", ".join(f"{side} {values[-1]:.2f} s" for side, values in times.items())
            print(f"round {number}: {told}", flush=True)
    ratios = [ours / imports for ours, imports in zip(times[TRAIN], times[REFERENCE], strict=True)]
    added = [run - train for run, train in zip(times[RUN], times[TRAIN], strict=True)]
    answers = [
        f"--help {spread(times[HELP])} s (at most {MOST_TO_ANSWER} wanted)",
        f"list {spread(times[LIST])} s (at most {MOST_TO_ANSWER} wanted); MLflow's import {spread(times[MLFLOW])} s",
        f"train to the first step {spread(ratios)} times the imports (at most {MOST_OF_IMPORTS} wanted), "
        f"which take {spread(times[REFERENCE])} s",
        f"mlflow run adds {spread(added)} s; MLflow's own start takes {spread(times[EMPTY_RUN])} s",
    ]
    print("\n".join(answers))
    import torch

    from cifar_mlflow.learning import hardware

    print(f"n={rounds}: {'; '.join(answers)}; {hardware.describe(torch.device('cpu'))}; {datetime.date.today()}")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
