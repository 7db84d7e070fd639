"""A training step of each network with the compiled functions (kernels.c) and with torch's own.

    python benchmarks/learning/kernels.py [ROUNDS]

The report's network trains 200 steps an epoch with batches of 32 random images of CIFAR-10's size, and that of
experiments/fast94.yaml 6 steps of 500. The sides take turns in one process; the second of two epochs counts, without an
evaluation. bfloat16 is measured where the processor computes in it. A round takes a minute on two cores. Leave the
machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import itertools
import statistics
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import yaml

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning import hardware
from cifar_mlflow.learning.compiled import bindings
from cifar_mlflow.learning.data.datasets import Dataset, LabeledImages
from cifar_mlflow.learning.training import Training

FAST94 = Path(__file__).resolve().parents[2] / "experiments" / "fast94.yaml"
REPORT = {"batch_size": 32, "scheduler": "none", "validation_size": 0, "epoch_evaluation": False}
NETWORKS = {"report_cnn": (REPORT, 200), "fast94": (yaml.safe_load(FAST94.read_text()), 6)}


def milliseconds(network: str, precision: str) -> float:
    """Of a step, in the mean over the second of two epochs."""
    options, steps = NETWORKS[network]
    config = resolve({**options, "epochs": 2, "precision": precision})
    hardware.keep_freed_memory()  # as the command line does
    *_, last = Training(config, random_images(steps * config.batch_size)).epochs()
    return 1000 * config.batch_size / last.images_per_second


def random_images(number: int) -> Dataset:
    images = LabeledImages(
        torch.randint(0, 256, (number, 32, 32, 3), dtype=torch.uint8), torch.randint(0, 10, (number,))
    )
    classes = tuple("0123456789")
    return Dataset("random", "none", classes, images, images.first(0), np.arange(0), images.first(100), "", "")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if bindings.available() is None:
        sys.exit(bindings.fault() or "the package was installed without a C compiler, so there is nothing to compare")
    device = torch.device("cpu")
    where = f"{hardware.describe(device)}; {datetime.date.today()}"
    precisions = ("float32", "bfloat16") if hardware.has_fast_bfloat16(device) else ("float32",)
    for network, precision in itertools.product(NETWORKS, precisions):
        torchs, ours = [], []
        for _ in range(rounds):
            with mock.patch.object(bindings, "available", return_value=None):
                torchs.append(milliseconds(network, precision))
            ours.append(milliseconds(network, precision))
        ratios = [slow / fast for slow, fast in zip(torchs, ours, strict=True)]
        print(
            f"{network}, {precision}: n = {rounds}, torch {spread(torchs)} ms a step, {bindings.describe(device)} "
            f"{spread(ours)} ms, torch / compiled {spread(ratios)}; {where}",
            flush=True,
        )


if __name__ == "__main__":
    main()
