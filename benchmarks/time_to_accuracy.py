"""Seconds of training until 77.5% of CIFAR-10's test images are right: the report's loop against fast77.yaml.

    CIFAR_MLFLOW_DATA=... python benchmarks/time_to_accuracy.py [ROUNDS]

The reference is the report's loop (report_loop.py): the seconds of one of its epochs, measured in each round, times the
epochs that it needs. How many those are is counted once, by `train` with the report's final method on all 50,000
images, which does the same mathematics in less time; if 30 epochs never come to 77.5%, the 30 are what it took.
The other side is a training by the preset, each round with another seed, in a process of its own, from the first step
to the end of the last epoch's evaluation; it must come to 77.5% in every round.
A round takes two minutes on two cores, and the count of the epochs ten before them. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import torch
from training import measured, spread

from cifar_mlflow.learning import hardware

ROOT = Path(__file__).resolve().parent.parent
WANTED = 77.5  # per cent of the test images, what the report came to
REPORT, FAST = "final.yaml", "fast77.yaml"


def accuracies(preset: str, seed: int) -> None:
    """Prints the seconds so far and the test accuracy after each epoch, as JSON, until it is what is wanted."""
    import time

    from cifar_mlflow.config import resolve
    from cifar_mlflow.learning import data
    from cifar_mlflow.learning.training import Training
    from cifar_mlflow.yaml_files import read_yaml

    values = {**read_yaml(ROOT / "experiments" / preset), "validation_size": 0, "seed": seed}
    config = resolve(values)
    session = Training(config, data.load(config))
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
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    counted = trained(REPORT, 0)
    needed, reached = len(counted), counted[-1][1]
    print(f"the report's method: {reached:.2f}% after {needed} epochs (wanted: {WANTED}%)", flush=True)
    ratios, fast, found = [], [], []
    for number in range(1, rounds + 1):
        epoch, _, _ = measured("report")
        seconds, accuracy = trained(FAST, number - 1)[-1]
        fast.append(seconds)
        found.append(accuracy)
        ratios.append(epoch * needed / seconds)
        print(
            f"round {number}: report {epoch:.1f} s an epoch, {epoch * needed:.0f} s; fast77 {seconds:.1f} s, "
            f"{accuracy:.2f}%",
            flush=True,
        )
    print()
    if min(found) < WANTED:
        sys.exit(f"fast77 came to {min(found):.2f}% only, so its seconds say nothing")
    print(
        f"time_to_accuracy: n = {rounds}, report / fast77 {spread(ratios, 1)}; fast77 {spread(fast, 1)} s, "
        f"{spread(found)}%; {hardware.describe(torch.device('cpu'))}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        accuracies(sys.argv[2], int(sys.argv[3]))
    else:
        main()
