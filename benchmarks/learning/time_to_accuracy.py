"""Seconds of training until 77.5% of CIFAR-10's test images are right: the report's loop against fast77.yaml.

    CIFAR_MLFLOW_DATA=... python benchmarks/learning/time_to_accuracy.py [ROUNDS]

Each round has a seed of its own, for both sides. The reference is the report's loop (report_loop.py): the seconds of
one of its epochs, measured in the round, times the epochs until the test accuracy first is what is wanted. Those are
counted by a training of the package with the report's final method (experiments/final.yaml, whose rate falls after 20
epochs) on all 50,000 images, which takes less time, and whose accuracies parity.py could not tell from the reference's;
if 30 epochs never come to 77.5%, the 30 are what it took. The other side is a training by the preset, in a process of
its own, from the first step to the end of the last epoch's evaluation; it must come to 77.5% in every round.
A round takes three to six minutes on two cores. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import torch
from training import check_data, measured, spread

from cifar_mlflow.learning import hardware

ROOT = Path(__file__).resolve().parents[2]
WANTED = 77.5  # per cent of the test images, what the report came to
REPORT, FAST = "final.yaml", "fast77.yaml"


def accuracies(preset: str, seed: int) -> None:
    """Prints the seconds so far and the test accuracy after each epoch, as JSON, until it is what is wanted."""
    import time

    from cifar_mlflow.config.rules import resolve
    from cifar_mlflow.config.yaml_files import read_yaml
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.data import datasets
    from cifar_mlflow.learning.training import Training

    values = {**read_yaml(ROOT / "experiments" / preset), "validation_size": 0, "seed": seed}
    config = resolve(values)
    hardware.keep_freed_memory()  # as the command line does
    session = Training(config, datasets.load(config))
    begun = time.perf_counter()
    for result in session.epochs():
        print(json.dumps([time.perf_counter() - begun, result.held_out_accuracy]), flush=True)
        if preset == REPORT and result.held_out_accuracy >= WANTED:
            break


def trained(preset: str, seed: int) -> list[tuple[float, float]]:
    """Seconds so far and test accuracy after each epoch, of a training in a process of its own."""
    command = [sys.executable, __file__, "--train", preset, str(seed)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [tuple(json.loads(line)) for line in lines]


def main() -> None:
    check_data()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    needed, ratios, fast, found = [], [], [], []
    for seed in range(rounds):
        epoch, _, _ = measured("report")
        reached = trained(REPORT, seed)
        seconds, accuracy = trained(FAST, seed)[-1]
        needed.append(float(len(reached)))
        fast.append(seconds)
        found.append(accuracy)
        ratios.append(epoch * len(reached) / seconds)
        print(
            f"seed {seed}: report {epoch:.1f} s an epoch, {reached[-1][1]:.2f}% after {len(reached)} epochs, "
            f"{epoch * len(reached):.0f} s; fast77 {seconds:.1f} s, {accuracy:.2f}%",
            flush=True,
        )
    print()
    if min(found) < WANTED:
        sys.exit(f"fast77 came to {min(found):.2f}% only, so its seconds say nothing")
    print(
        f"time_to_accuracy: n = {rounds} seeds, report / fast77 {spread(ratios, 1)}; the report's method needs "
        f"{spread(needed, 0)} epochs, fast77 {spread(fast, 1)} s, {spread(found)}%; "
        f"{hardware.describe(torch.device('cpu'))}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        accuracies(sys.argv[2], int(sys.argv[3]))
    else:
        main()
