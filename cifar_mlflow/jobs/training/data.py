"""The data of a job: read with a bar, and what is worth telling of them told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cifar_mlflow.config.paths import is_path
from cifar_mlflow.config.rules import batch_warning
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import DataError
from cifar_mlflow.jobs.listener import bar, warn
from cifar_mlflow.tables import csv_lines
from cifar_mlflow.text import shown

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset

UNEQUAL = 3  # times as many images has the largest class: then balanced accuracy is told too


def check(config: TrainingConfig) -> None:
    """Raises DataError if this machine, one of several, has not the data, nor can fetch them; nothing is read."""
    from cifar_mlflow.learning.data import cifar10

    if config.dataset == "cifar10":
        cifar10.place_here(config.data_dir)
    elif is_path("dataset", config.dataset) and not os.path.exists(os.path.expanduser(config.dataset)):
        raise DataError(f"{config.dataset}: there is no such path; each node needs the data at the same one")


def load(config: TrainingConfig) -> Dataset:
    """As `datasets.load`."""
    from cifar_mlflow.learning.data import datasets

    return _told(datasets.load(config, bar))


def load_recorded(config: TrainingConfig, digest: str, run_id: str) -> Dataset:
    """As `datasets.load_recorded`."""
    from cifar_mlflow.learning.data import datasets

    return _told(datasets.load_recorded(config, digest, run_id, bar))


def load_test_folder(path: str, classes: tuple[str, ...], image_shape: tuple[int, int, int]) -> Dataset:
    """As `datasets.load_test_folder`."""
    from cifar_mlflow.learning.data import datasets

    return _told(datasets.load_test_folder(path, classes, image_shape, bar))


def _told(dataset: Dataset) -> Dataset:
    for text in [*dataset.warnings, *filter(None, [unequal_classes(dataset)])]:
        warn(text)
    return dataset


def unequal_classes(dataset: Dataset) -> str:
    """That accuracy would flatter, if classes are very unequal in the images that are trained on, or else scored."""
    images = dataset.train if len(dataset.train) else dataset.test
    counts = {name: int((images.labels == label).sum()) for label, name in enumerate(dataset.classes)}
    counts = {name: number for name, number in counts.items() if number}
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[largest] <= UNEQUAL * counts[smallest]:
        return ""
    return (
        f"the classes are unequal: {shown(largest)} has {counts[largest]:,} images and {shown(smallest)} "
        f"{counts[smallest]:,}, so accuracy flatters what favours the large ones; balanced accuracy, the mean recall, "
        "does not (--class-weights balanced, --objective final_val_balanced_accuracy)"
    )


def without_effect(config: TrainingConfig, dataset: Dataset) -> list[str]:
    """A warning for each option that changes nothing with these images."""
    told = [batch_warning(config, len(dataset.train))]
    counts = dataset.train.labels.bincount(minlength=len(dataset.classes))
    if config.class_weights == "balanced" and counts.min() == counts.max():
        each = f"each class has {int(counts[0]):,} images to train on"
        told.append(f"--class-weights balanced has no effect: {each}")
    return [*filter(None, told)]


def files(config: TrainingConfig, dataset: Dataset) -> dict[str, bytes]:
    """What a run keeps of its data, by name: the files that were left out and the weights of the classes, if any."""
    from cifar_mlflow.learning.data.datasets import class_weights

    tables = {}
    if dataset.skipped:
        tables["skipped_images.csv"] = [("file", "reason"), *((each.name, each.reason) for each in dataset.skipped)]
    if config.class_weights == "balanced":
        weights = class_weights(dataset.train.labels, len(dataset.classes)).tolist()
        tables["class_weights.csv"] = [("class", "weight"), *zip(dataset.classes, map(str, weights), strict=True)]
    return {name: csv_lines(rows).encode() for name, rows in tables.items()}
