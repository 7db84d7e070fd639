"""ResNet-18 on JPEG images of 64 x 64: images a second of `cifar-mlflow train` against a plain loop of torchvision's.

    python benchmarks/learning/resnet18.py [ROUNDS [IMAGES]]

2,000 training images in ten classes are written once. All sides train torchvision's resnet18 for two epochs by SGD
with momentum, in batches of 128, shifted by up to four pixels and flipped at random, in turn, each in a process of its
own, with all cores. The second epoch counts, without an evaluation:
    reference  ImageFolder, RandomCrop, RandomHorizontalFlip, ToTensor and Normalize in a DataLoader with two workers,
               float32, without channels last, as torchvision's own reference trains by default
    float32    `cifar-mlflow train --network torchvision:resnet18 --precision float32`
    bfloat16   the same with --precision bfloat16, where the processor has it

`train` decodes the images once, before its first epoch, and the reference does it in each. What it takes the package
with an empty cache is measured in each round too, and told apart. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from folders import OURS, SIZE, measured
from mlflow import MlflowClient
from training import run, spread

from cifar_mlflow.learning import hardware

IMAGES, TEST_IMAGES, CLASSES = 2000, 100, 10
EPOCHS, BATCH, RATE, MOMENTUM, SHIFT = 2, 128, 0.05, 0.9, 4
WANTED = 1.5
REFERENCE = """
import json, sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

folder, size, classes, epochs, batch, rate, momentum, shift = sys.argv[1], *map(float, sys.argv[2:])
steps = [transforms.RandomCrop(int(size), padding=int(shift)), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
steps.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
images = datasets.ImageFolder(folder, transforms.Compose(steps))
loader = DataLoader(images, batch_size=int(batch), shuffle=True, num_workers=2)
model = models.resnet18(num_classes=int(classes)).train()
optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
loss_function = nn.CrossEntropyLoss()
for _ in range(int(epochs)):
    begun = time.perf_counter()
    for pixels, labels in loader:
        loss = loss_function(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - begun
print(json.dumps(len(images) / seconds))
"""


def write(photos: Path, images: int) -> None:
    """JPEG files with some detail, no two alike: folders of the classes in train/ and in test/."""
    import numpy as np
    from PIL import Image

    for number in range(images + TEST_IMAGES):
        rng = np.random.default_rng(number)
        rough = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        part = "train" if number < images else "test"
        file = photos / part / f"class{number % CLASSES}" / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        rough.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, quality=90)


def of_reference(photos: Path) -> float:
    """Images a second of the last epoch."""
    numbers = map(str, (SIZE, CLASSES, EPOCHS, BATCH, RATE, MOMENTUM, SHIFT))
    command = [sys.executable, "-c", REFERENCE, str(photos / "train"), *numbers]
    return float(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def of_train(photos: Path, precision: str) -> float:
    """Images a second of the last epoch, as the run has recorded them."""
    with tempfile.TemporaryDirectory() as directory:
        uri = f"sqlite:///{directory}/mlflow.db"
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": uri,
            "CIFAR_MLFLOW_STATE": f"{directory}/state",
            "XDG_CACHE_HOME": f"{directory}/cache",
        }
        options = {
            "network": "torchvision:resnet18", "dataset": f"{photos}/", "image-size": SIZE, "validation-size": 0,
            "epoch-evaluation": "false", "augmentation": "flip_crop", "shift": SHIFT, "normalize": "true",
            "optimizer": "sgd", "learning-rate": RATE, "momentum": MOMENTUM, "scheduler": "none", "batch-size": BATCH,
            "epochs": EPOCHS, "precision": precision, "device": "cpu", "experiment": "benchmark",
        }  # fmt: skip
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        run([sys.executable, "-m", "cifar_mlflow", "train", *words], environment, directory)
        client = MlflowClient(uri)
        (experiment,) = client.search_experiments(filter_string="name = 'benchmark'")
        (recorded,) = client.search_runs([experiment.experiment_id])
    return float(recorded.data.metrics["images_per_second"])


def main() -> None:
    rounds, images = (int(word) for word in [*sys.argv[1:], *("3", str(IMAGES))[len(sys.argv) - 1 :]])
    cpu = torch.device("cpu")
    precisions = ["float32", *(["bfloat16"] if hardware.has_fast_bfloat16(cpu) else [])]
    rates: dict[str, list[float]] = {side: [] for side in ("reference", *precisions)}
    reading = []
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        write(photos, images)
        for number in range(1, rounds + 1):
            for side, values in rates.items():
                values.append(of_reference(photos) if side == "reference" else of_train(photos, side))
            reading.append(measured(OURS, photos, Path(name) / f"cache{number}")["seconds"])
            told = ", ".join(f"{side} {values[-1]:.1f}" for side, values in rates.items())
            print(f"round {number}: images a second: {told}; decoded in {reading[-1]:.2f} s", flush=True)
    ratios = []
    for precision in precisions:
        faster = [ours / theirs for ours, theirs in zip(rates[precision], rates["reference"], strict=True)]
        ratios.append(f"{precision} {spread(rates[precision], 1)}, {spread(faster)} times the reference")
    print(
        f"resnet18: n = {rounds}, {images:,} images of {SIZE} x {SIZE}, images a second: reference "
        f"{spread(rates['reference'], 1)}; {'; '.join(ratios)} (at least {WANTED} wanted); decoded once in "
        f"{spread(reading)} s; {hardware.describe(cpu)}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
