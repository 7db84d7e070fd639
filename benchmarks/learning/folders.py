"""A folder of photographs as a dataset, against an epoch of torchvision's ImageFolder over the same files.

    python benchmarks/learning/folders.py [ROUNDS [IMAGES]]

20,000 JPEG files of about 300 x 300 pixels, in ten classes, are written once; they become 64 x 64. Each round, in turn,
each in a process of its own:
    reference   one epoch of a DataLoader with two workers over torchvision's ImageFolder, with Resize, CenterCrop and
                ToTensor, batches of 128; nothing is done with the images
    first       what `cifar-mlflow train` does until its images are resident, with an empty cache
    second      the same once more

Imports are left out of all three. The memory is the peak of the process beyond what it had before it began, less the
images. A round takes two minutes or more on two cores. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
IMAGES, CLASSES, SIZE = 20_000, 10, 64
MOST_OF_EPOCH, MOST_SECONDS, MOST_MEGABYTES = 0.6, 3, 300
SIDES = ("reference", "first", "second")
REFERENCE = """
import json, sys, time
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

size = int(sys.argv[2])
begun = time.perf_counter()
steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
images = datasets.ImageFolder(sys.argv[1], transforms.Compose(steps))
for batch, labels in DataLoader(images, batch_size=128, shuffle=True, num_workers=2):
    pass
print(json.dumps({"seconds": time.perf_counter() - begun}))
"""
OURS = """
import json, resource, sys, time
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.data import datasets

config = resolve({"dataset": sys.argv[1] + "/", "image_size": sys.argv[2]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.perf_counter()
found = datasets.load(config)
seconds = time.perf_counter() - begun
images = sum(part.pixels.nbytes for part in (found.train, found.validation, found.test))
beyond = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) - images
print(json.dumps({"seconds": seconds, "megabytes": beyond / 1e6}))
"""


def write(directory: Path, images: int) -> None:
    """JPEG files with about the detail of photographs: 20 to 30 kB each, no two alike."""
    from PIL import Image

    for number in range(images):
        rng = np.random.default_rng(number)
        width, height = rng.integers(280, 321, 2)
        rough = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        smooth = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = np.clip(smooth + rng.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
        file = directory / f"class{number % CLASSES}" / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(file, quality=85)


def measured(script: str, photos: Path, cache: Path) -> dict[str, float]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(photos), str(SIZE)]
    told = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, float] = json.loads(told)
    return answer


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    rounds, images = (int(word) for word in [*sys.argv[1:], *("3", str(IMAGES))[len(sys.argv) - 1 :]])
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        write(photos, images)
        for number in range(1, rounds + 1):
            cache = Path(name) / f"cache{number}"
            for side in SIDES:
                results[side].append(measured(REFERENCE if side == "reference" else OURS, photos, cache))
            told = ", ".join(f"{side} {values[-1]['seconds']:.1f} s" for side, values in results.items())
            print(f"round {number}: {told}", flush=True)
    seconds = {side: [each["seconds"] for each in values] for side, values in results.items()}
    ratios = [ours / theirs for ours, theirs in zip(seconds["first"], seconds["reference"], strict=True)]
    beyond = [each["megabytes"] for side in ("first", "second") for each in results[side]]
    import torch

    from cifar_mlflow.learning import hardware

    print(
        f"n={rounds}, {images:,} images: first start {spread(ratios)} times an epoch of ImageFolder (at most "
        f"{MOST_OF_EPOCH} wanted), which takes {spread(seconds['reference'])} s; second start "
        f"{spread(seconds['second'])} s (at most {MOST_SECONDS} wanted); memory beyond the images {spread(beyond)} MB "
        f"(at most {MOST_MEGABYTES} wanted); {hardware.describe(torch.device('cpu'))}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
