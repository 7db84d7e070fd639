"""An epoch of the report's own loop against an epoch of `train` with the same configuration, on CIFAR-10.

    CIFAR_MLFLOW_DATA=... python benchmarks/training.py [ROUNDS]

The reference is what the report describes, written plainly: torchvision's dataset as a list of tensors, a DataLoader
with two workers, float32, Adam, the test set after the epoch. Ours is `train` with the defaults on the same 50,000
images, its epoch by its own clock, with the evaluation. Each in a process of its own, in turn, with all cores; the
second epoch is the one that counts, since the first warms up. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 2
ROOT = Path(__file__).resolve().parent.parent


def reference() -> list[float]:
    """Seconds of each epoch of the report's loop."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    directory = os.environ["CIFAR_MLFLOW_DATA"]
    torch.manual_seed(0)
    parts = {train: datasets.CIFAR10(directory, train, transforms.ToTensor()) for train in (True, False)}
    train_loader = DataLoader(list(parts[True]), batch_size=32, shuffle=True, num_workers=2)
    test_loader = DataLoader(list(parts[False]), batch_size=32, num_workers=2)
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(), nn.BatchNorm2d(16)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.PReLU(), nn.BatchNorm2d(32), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.PReLU(), nn.BatchNorm2d(64), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 8 * 8, 100), nn.PReLU(), nn.BatchNorm1d(100), nn.Linear(100, 10)),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.002)
    loss_function = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(EPOCHS):
        begun = time.perf_counter()
        network.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = loss_function(network(images), labels)
            loss.backward()
            optimizer.step()
        network.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test_loader:
                correct += (network(images).argmax(1) == labels).sum().item()
        seconds.append(time.perf_counter() - begun)
    return seconds


def ours(precision: str) -> list[float]:
    """Seconds of each epoch of our training, its evaluation included."""
    from cifar_mlflow.config import resolve
    from cifar_mlflow.learning import data
    from cifar_mlflow.learning.training import Training

    values = {"epochs": EPOCHS, "scheduler": "none", "validation_size": 0, "precision": precision}
    config = resolve(values)
    seconds = []
    session = Training(config, data.load(config))
    begun = time.perf_counter()
    for _ in session.epochs():
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return seconds


def measured(side: str) -> float:
    """Seconds of the last epoch of one side, in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "seconds.json"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, __file__, side, str(result)], check=True, env=environment)
        return float(json.loads(result.read_text())[-1])


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    sides = ("reference", "float32", "auto")
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        for side in sides:
            times[side].append(measured(side))
        told = ", ".join(f"{side} {times[side][-1]:.1f} s" for side in sides)
        print(f"round {number}: {told}", flush=True)
    for side in sides[1:]:
        ratios = [theirs / mine for theirs, mine in zip(times["reference"], times[side], strict=True)]
        print(f"{side}: {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        side, result = sys.argv[1:]
        Path(result).write_text(json.dumps(reference() if side == "reference" else ours(side)))
    else:
        main()
