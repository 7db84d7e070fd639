"""A training step of the report's network with the compiled functions (kernels.c) and with torch's own.

    python benchmarks/kernels.py [ROUNDS]

Each side trains two epochs of 200 steps with batches of 32 random images of CIFAR-10's size, in turn, in one process;
the second epoch counts, without an evaluation. bfloat16 is measured where the processor computes in it. A round takes
half a minute on two cores. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import statistics
import sys
from unittest import mock

import numpy as np
import torch

from cifar_mlflow.config import resolve
from cifar_mlflow.learning import hardware, kernels
from cifar_mlflow.learning.data import Dataset, Images
from cifar_mlflow.learning.training import Training

BATCH, STEPS = 32, 200


def milliseconds(precision: str, data: Dataset) -> float:
    """Of a step, in the mean over the second of two epochs."""
    options = {"epochs": 2, "batch_size": BATCH, "precision": precision, "scheduler": "none", "validation_size": 0}
    *_, last = Training(resolve({**options, "epoch_evaluation": False}), data).epochs()
    return 1000 * BATCH / last.images_per_second


def random_images() -> Dataset:
    pixels = torch.randint(0, 256, (STEPS * BATCH, 32, 32, 3), dtype=torch.uint8)
    images = Images(pixels, torch.randint(0, 10, (STEPS * BATCH,)))
    classes = tuple("0123456789")
    return Dataset("random", "none", classes, images, images.first(0), np.arange(0), images.first(100), "", "")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if kernels.available() is None:
        sys.exit(kernels.fault() or "the package was installed without a C compiler, so there is nothing to compare")
    device, data = torch.device("cpu"), random_images()
    for precision in ("float32", "bfloat16") if hardware.has_fast_bfloat16(device) else ("float32",):
        torchs, ours = [], []
        for _ in range(rounds):
            with mock.patch.object(kernels, "available", return_value=None):
                torchs.append(milliseconds(precision, data))
            ours.append(milliseconds(precision, data))
        ratios = [slow / fast for slow, fast in zip(torchs, ours, strict=True)]
        where = f"{hardware.describe(device)}; {datetime.date.today()}"
        print(
            f"kernels: n = {rounds}, {precision}: torch {spread(torchs)} ms a step, {kernels.describe(device)} "
            f"{spread(ours)} ms, torch / compiled {spread(ratios)}; {where}"
        )


if __name__ == "__main__":
    main()
