"""A sweep on two workers against the same runs by `train` commands, one after the other.

    python benchmarks/sweeps/quick_sweep.py [ROUNDS]

Each round runs experiments/quick.yaml through `mlflow run`, then its twelve runs as twelve commands, each side in a
fresh store; both sides' seconds are wall-clock, with the start of every process. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cifar_mlflow.config.sweep import load_spec

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "experiments" / "quick.yaml"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    spec = load_spec(SPEC)
    configs = [spec.configuration(values, seed) for values in spec.grid() for seed in spec.seeds]
    print(f"{len(configs)} runs, {os.cpu_count()} cores, {rounds} rounds")
    ratios = []
    # A single run may use every core, which the sweep's workers share.
    options = [config.model_copy(update={"threads": "auto"}).as_options() for config in configs]
    words = [[word for name, value in each.items() for word in (f"--{name}", value)] for each in options]
    for number in range(1, rounds + 1):
        swept = seconds([["mlflow", "run", ".", "-e", "sweep", "--env-manager", "local", "-P", f"spec={SPEC}"]])
        trained = seconds([[sys.executable, "-m", "cifar_mlflow", "train", *each] for each in words])
        ratios.append(swept / trained)
        print(
            f"round {number}: sweep {swept:.1f} s, train commands {trained:.1f} s, ratio {ratios[-1]:.2f}", flush=True
        )
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"sweep / train commands: median {statistics.median(ratios):.2f} ({spread})")


def seconds(commands: list[list[str]]) -> float:
    """How long the commands take, one after the other, with a store and a state directory of their own."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
            "CIFAR_MLFLOW_STATE": f"{directory}/state",
        }
        begun = time.perf_counter()
        for command in commands:
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        return time.perf_counter() - begun


if __name__ == "__main__":
    main()
