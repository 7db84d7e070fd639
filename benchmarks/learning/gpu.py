"""On one CUDA card: images a second against the report's loop, and seconds to 94% against airbench94's method.

    CIFAR_MLFLOW_DATA=... python benchmarks/learning/gpu.py [ROUNDS]
    python benchmarks/learning/gpu.py 1 --device cpu --images 50

The sides take turns, each in a process of its own, with the number of the round as its seed, on all 50,000 images:
    report      the report's loop (report_loop.py), its network and its batches on the card: two epochs, of which the
                second counts, with the evaluation of the test images
    auto        the same by the package (learning/training.py) with --precision auto
    airbench94  a plain loop of that method (airbench_loop.py): its whole training, from bytes in memory to weights
    fast94      the same by the package, as experiments/fast94.yaml says

Imports, reading the data, the start of the card and a first, short training are left out of all, and so are MLflow
and checkpoints. Of the last two, six views of each test image are scored, outside the time; both methods are made to
come to 94% at their end, and how far they came is told with their seconds. Leave the machine alone meanwhile.

The second command tries the script where there is no card, on random images; what it prints says nothing about speed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import airbench_loop
import report_loop
import torch
from kernels import REPORT, random_images
from torch.utils.data import DataLoader
from training import check_data, spread

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.learning import evaluation, hardware
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training

FAST94 = Path(__file__).resolve().parents[2] / "experiments" / "fast94.yaml"
SPEED, TO_94 = ("report", "auto"), ("airbench94", "fast94")
EPOCHS, WANTED = 2, 94.0
WARM_UP_IMAGES = 2048  # two batches of the larger ones


class OnDevice:
    """The batches of a loader, on the device."""

    def __init__(self, loader: DataLoader, device: torch.device) -> None:
        self._loader, self.dataset, self._device = loader, loader.dataset, device

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for batch in self._loader:
            yield [tensor.to(self._device) for tensor in batch]


def data_of(images: int) -> datasets.Dataset:
    """CIFAR-10, all of its training images to train on, or so many random `images`."""
    return random_images(images) if images else datasets.load(resolve(REPORT))


def of_report(device: torch.device, images: int, seed: int) -> tuple[float, float]:
    """Images a second of the report's loop, and its test accuracy."""
    if images:
        random = data_of(images)
        parts = (
            [*zip(each.pixels.permute(0, 3, 1, 2) / 255, each.labels, strict=True)]
            for each in (random.train, random.test)
        )
        loaders = [DataLoader(part, batch_size=32, num_workers=2) for part in parts]
    else:
        loaders = list(report_loop.loaders())
    moved, network = [OnDevice(loader, device) for loader in loaders], report_loop.network
    with (
        mock.patch.object(report_loop, "loaders", return_value=moved),
        mock.patch.object(report_loop, "network", side_effect=lambda: network().to(device)),
    ):
        *_, (seconds, accuracy) = report_loop.train(EPOCHS, seed)
    return len(moved[0].dataset) / seconds, accuracy


def of_auto(device: torch.device, images: int, seed: int) -> tuple[float, float]:
    """Images a second of the package, and its test accuracy."""
    data = data_of(images)
    config = resolve({**REPORT, "epoch_evaluation": True, "epochs": EPOCHS, "seed": seed, "device": device.type})
    epochs = Training(config, data).epochs()
    for _ in range(EPOCHS):
        begun = time.perf_counter()
        result = next(epochs)
        seconds = time.perf_counter() - begun
    return len(data.train) / seconds, result.held_out_accuracy


def of_airbench94(device: torch.device, images: int, seed: int) -> tuple[float, float]:
    """Seconds of its training, and its test accuracy."""
    data = data_of(images)
    few = data.train.first(WARM_UP_IMAGES)
    airbench_loop.Trained(few.pixels, few.labels, device, epochs=1)
    trained = airbench_loop.Trained(data.train.pixels, data.train.labels, device, seed)
    return trained.seconds, trained.accuracy(data.test.pixels, data.test.labels)


def of_fast94(device: torch.device, images: int, seed: int) -> tuple[float, float]:
    """Seconds of the package's training by the preset, and its test accuracy."""
    data = data_of(images)
    config = resolve({**read_yaml(FAST94), "seed": seed, "device": device.type})
    few = dataclasses.replace(data, train=data.train.first(WARM_UP_IMAGES))
    list(Training(config.model_copy(update={"epochs": 1}), few).epochs())
    begun = time.perf_counter()
    training = Training(config, data)
    list(training.epochs())
    seconds = time.perf_counter() - begun
    network, test = training.network.eval(), data.test.to(device)
    answers = evaluation.predict(lambda pixels: network(training.preprocessing(pixels)).softmax(1), test, views=6)
    return seconds, 100 * float((answers.argmax(1) == data.test.labels.numpy()).mean())


MEASURED = {"report": of_report, "auto": of_auto, "airbench94": of_airbench94, "fast94": of_fast94}


def in_a_process(side: str, device: str, images: int, seed: int) -> tuple[float, float]:
    command = [sys.executable, __file__, "--device", device, "--images", str(images), "--side", side, str(seed)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    value, accuracy = json.loads(output.splitlines()[-1])
    return value, accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--images", type=int, default=0, help="so many random images, to try the script")
    parser.add_argument("--side", choices=MEASURED, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    trial = "`python benchmarks/learning/gpu.py 1 --device cpu --images 50` tries the script without one"
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"there is no CUDA GPU that torch can use, so there is nothing to measure; {trial}")
    if options.device == "cpu" and not options.images:
        sys.exit(f"--device cpu is there to try the script on a few random images: {trial}")
    if not options.images:
        check_data()
    device = torch.device(options.device)
    if options.side:
        hardware.keep_freed_memory()  # as the command line does
        print(json.dumps(MEASURED[options.side](device, options.images, options.rounds)))
        return
    values: dict[str, list[float]] = {side: [] for side in MEASURED}
    accuracies: dict[str, list[float]] = {side: [] for side in MEASURED}
    for seed in range(options.rounds):
        for side in MEASURED:
            value, accuracy = in_a_process(side, options.device, options.images, seed)
            values[side].append(value)
            accuracies[side].append(accuracy)
            unit = "images/s" if side in SPEED else "s"
            print(f"seed {seed}: {side} {value:,.2f} {unit}, {accuracy:.2f}% correct", flush=True)
    print()
    told = f"{hardware.describe(device)}; {datetime.date.today()}"
    if options.images:
        told += "; a trial on random images, which says nothing about speed"
    faster = [ours / theirs for theirs, ours in zip(*(values[side] for side in SPEED), strict=True)]
    print(
        f"gpu, images a second: n = {options.rounds}, report {spread(values['report'], 0)}, auto "
        f"{spread(values['auto'], 0)}, auto / report {spread(faster)}; {told}"
    )
    slower = [theirs / ours for theirs, ours in zip(*(values[side] for side in TO_94), strict=True)]
    sides = [f"{side} {spread(values[side])} s, {statistics.mean(accuracies[side]):.2f}% on average" for side in TO_94]
    print(
        f"gpu, seconds of a training to {WANTED:.0f}%: n = {options.rounds}, {', '.join(sides)} ({WANTED} wanted), "
        f"airbench94 / fast94 {spread(slower)}; {told}"
    )
    for side in TO_94:
        if statistics.mean(accuracies[side]) < WANTED and not options.images:
            print(f"{side} came to less than {WANTED}% on average, so that its seconds are not those to {WANTED}%")


if __name__ == "__main__":
    main()
