"""Datasets as resident uint8 tensors: those with a name, and the user's own .npz files and folders of images."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from cifar_mlflow.config.paths import is_path
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError, DataError
from cifar_mlflow.learning.data import cifar10, image_folder, named, npz_files, splitting
from cifar_mlflow.learning.data.decoded_files import Bar, no_bar
from cifar_mlflow.learning.data.image_files import Skipped

DIGITS_TEST_SHARE = 5  # every fifth image of a class, about 360 of 1,797
AUTO_VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class LabeledImages:
    """Labelled images: `pixels` uint8 (n, height, width, channels), `labels` int64 (n)."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: np.ndarray) -> "LabeledImages":
        """Those of which `chosen`, bool (n), is true."""
        places = torch.from_numpy(np.flatnonzero(chosen))
        return LabeledImages(self.pixels[places], self.labels[places])

    def first(self, count: int) -> "LabeledImages":
        return LabeledImages(self.pixels[:count], self.labels[:count])

    def to(self, device: torch.device) -> "LabeledImages":
        return LabeledImages(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """One dataset, split. `validation` is empty if the run trains on all training images.

    `digest` (32 hex digits) covers every byte, the class names and the split; `test_digest` the test images and
    their labels alone. `validation_indices` are positions in the original training set. `skipped` are files that were
    left out, since they cannot be read; `warnings` are for the user. `names` are those of the files of a folder, by
    their positions in the training set. Where a run trains without a fold, `left_out` are that fold's images, which
    `train` lacks, and `left_out_indices` their positions; the digests are those of the whole.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: LabeledImages
    validation: LabeledImages
    validation_indices: np.ndarray
    test: LabeledImages
    digest: str
    test_digest: str
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    left_out: LabeledImages | None = None
    left_out_indices: np.ndarray | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)"""
        height, width, channels = self.train.pixels.shape[1:]
        return height, width, channels

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over the training images, in units of 0 to 1."""
        values = torch.arange(256, dtype=torch.float64) / 255
        means, deviations = [], []
        for channel in self.train.pixels.unbind(-1):
            share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
            mean = float((share * values).sum())
            means.append(mean)
            deviations.append(max(float((share * (values - mean) ** 2).sum().sqrt()), 1e-8))
        return tuple(means), tuple(deviations)


class _Arrays(NamedTuple):
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    source: str


def load(config: TrainingConfig, bar: Bar = no_bar) -> Dataset:
    """The dataset that `config` names, split by its `split_seed`; `bar` shows what takes long.

    Raises:
        DataError: missing, damaged or of the wrong shape; the message names the file.
        ConfigurationError: the validation split does not fit the dataset.
    """
    return without_fold(_load(config, bar), config)


def without_fold(dataset: Dataset, config: TrainingConfig) -> Dataset:
    """The dataset without the fold of its training images that `config` leaves out by its seed, if it leaves out any.

    Raises ConfigurationError if there are more folds than images.
    """
    if config.folds == "none":
        return dataset
    images = len(dataset.train)
    if images < config.folds:
        raise ConfigurationError(f"--folds: {config.folds} is refused: there are {images:,} images to train on")
    numbers = splitting.fold_numbers(dataset.train.labels.numpy(), config.folds, config.split_seed)
    chosen = numbers == config.seed % config.folds
    positions = np.setdiff1d(np.arange(images + len(dataset.validation)), dataset.validation_indices)
    train, left_out = (dataset.train.where(places) for places in (~chosen, chosen))
    return replace(dataset, train=train, left_out=left_out, left_out_indices=positions[chosen])


def _load(config: TrainingConfig, bar: Bar) -> Dataset:
    if config.is_folder:
        return _of_folder(config.dataset_name, image_folder.read(config, bar))
    if config.dataset == "cifar10":
        arrays = _Arrays(*cifar10.read(config.data_dir))
    elif config.dataset in named.DATASETS:
        arrays = _Arrays(*named.read(config.dataset, config.data_dir))
    elif config.dataset == "digits":
        arrays = _read_digits()
    else:
        arrays = _read_npz(Path(os.path.expanduser(config.dataset)))
    held_out = _validation_count(config, len(arrays.y_train))
    validation = splitting.stratified_indices(arrays.y_train, held_out, config.split_seed)
    train = np.setdiff1d(np.arange(len(arrays.y_train)), validation)
    return Dataset(
        name=config.dataset_name,
        source=arrays.source,
        classes=arrays.classes,
        train=_images(arrays.x_train[train], arrays.y_train[train]),
        validation=_images(arrays.x_train[validation], arrays.y_train[validation]),
        validation_indices=validation,
        test=_images(arrays.x_test, arrays.y_test),
        digest=_digest(*arrays[:4], validation, np.array(arrays.classes)),
        test_digest=_digest(arrays.x_test, arrays.y_test),
    )


def load_recorded(config: TrainingConfig, digest: str, run_id: str, bar: Bar = no_bar) -> Dataset:
    """As `load`; raises DataError too if these are not the data with the `digest` that the run recorded."""
    if is_path("dataset", config.dataset) and not os.path.exists(config.dataset):
        raise DataError(
            f"{config.dataset}, on which the run {run_id} trained, is not there; say by --data-dir where it is"
        )
    dataset = load(config, bar)
    if dataset.digest != digest:
        raise DataError(
            f"{dataset.source} is not the data that the run {run_id} trained on (digest {dataset.digest}, recorded "
            f"{digest}); put the original back, or say by --data-dir where it is"
        )
    return dataset


def load_test_set(path: str, classes: tuple[str, ...]) -> Dataset:
    """The test images of an .npz file, which needs no others; `train` and `validation` are empty.

    A file without `classes` has those given, if they have no names but their numbers. Raises DataError as `load`.
    """
    x, y, names = npz_files.read_test(Path(path), classes)
    none, digest = _images(x[:0], y[:0]), _digest(x, y)
    return Dataset(Path(path).stem, path, names, none, none, np.array([]), _images(x, y), digest, digest)


def load_test_folder(path: str, classes: tuple[str, ...], shape: tuple[int, int, int], bar: Bar = no_bar) -> Dataset:
    """The test images of a folder, as a model takes them of these `classes`, among which the folder's are.

    They are fitted to `shape` (height, width, channels); there are no others. Raises DataError as `load`.
    """
    found = image_folder.read_test(path, classes, shape, bar)
    numbers = np.array([classes.index(name) for name in found.tree.classes], dtype=np.int64)
    x, y = found.pixels["test"], numbers[found.labels("test")]
    none, digest = _images(x[:0], y[:0]), _digest(x, y)
    return Dataset(
        Path(path).name, path, classes, none, none, np.array([]), _images(x, y), digest, digest,
        warnings=tuple(found.warnings),
    )  # fmt: skip


def _of_folder(name: str, found: image_folder.FolderImages) -> Dataset:
    parts = {part: _images(found.pixels[part], found.labels(part)) for part in image_folder.PARTS}
    training = np.sort(np.concatenate([found.rows["train"], found.rows["validation"]]))
    validation = np.searchsorted(training, found.rows["validation"])
    x_train, x_test = (found.digests[rows] for rows in (training, found.rows["test"]))  # which stand for all pixels
    shape = np.array(found.pixels["train"].shape[1:])
    y_train = found.file_labels[training]
    return Dataset(
        name=name,
        source=str(found.tree.root),
        classes=found.tree.classes,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        validation_indices=validation,
        digest=_digest(shape, x_train, y_train, x_test, found.labels("test"), validation, np.array(found.tree.classes)),
        test_digest=_digest(parts["test"].pixels.numpy(), found.labels("test")),
        skipped=tuple(found.skipped),
        names=tuple(found.names[row] for row in training.tolist()),
        warnings=tuple(found.warnings),
    )


def overlap(test: LabeledImages, train: LabeledImages) -> int:
    """How many of the `test` images are, byte for byte, among the `train` images."""
    if test.pixels.shape[1:] != train.pixels.shape[1:]:
        return 0
    ours = [*_image_digests(test)]
    shared = set(ours).intersection(_image_digests(train))
    return sum(each in shared for each in ours)


def _image_digests(images: LabeledImages) -> Iterator[bytes]:
    """Of each image; 16 bytes in place of thousands, for sets that hold all of them."""
    return (hashlib.blake2b(image, digest_size=16).digest() for image in images.pixels.contiguous().numpy())


def _validation_count(config: TrainingConfig, images: int) -> int:
    is_auto = config.validation_size == "auto"
    count = max(1, round(images * AUTO_VALIDATION_SHARE)) if is_auto else int(config.validation_size)
    if images - count < 2:
        given = f"auto, which is {count}," if is_auto else count
        raise ConfigurationError(
            f"--validation-size: {given} leaves fewer than 2 of {images} images to train on; give at most {images - 2}"
        )
    return count


def _images(pixels: np.ndarray, labels: np.ndarray) -> LabeledImages:
    return LabeledImages(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels.astype(np.int64)))


def _digest(*arrays: np.ndarray) -> str:
    # MLflow keeps at most 36 characters of a dataset's digest.
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.kind}{array.shape}".encode())
        total.update(np.ascontiguousarray(array.astype(np.int64) if array.dtype.kind == "i" else array).data)
    return total.hexdigest()[:32]


def _read_digits() -> _Arrays:
    # The file that scikit-learn's load_digits reads: importing scikit-learn takes as long as importing MLflow.
    sklearn = importlib.util.find_spec("sklearn")
    if sklearn is None or sklearn.origin is None:
        raise DataError("the digits come with the package sklearn, which is not installed here; install it with pip")
    rows = np.loadtxt(Path(sklearn.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    # 8 x 8 gray levels of 0 to 16 become 32 x 32 RGB, so that networks for CIFAR-10 take them as they are.
    levels = np.round(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(levels.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    labels = rows[:, -1].astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[::DIGITS_TEST_SHARE]] = True
    return _Arrays(
        pixels[~test], labels[~test], pixels[test], labels[test], tuple("0123456789"), "scikit-learn load_digits"
    )


def _read_npz(path: Path) -> _Arrays:
    x_train, y_train, x_test, y_test, classes = npz_files.read(path)
    if shared := overlap(_images(x_test, y_test), _images(x_train, y_train)):
        raise DataError(
            f"{path}: {shared} of the {len(y_test)} test images are also training images, so a test accuracy "
            "would flatter; take them out of x_test"
        )
    return _Arrays(x_train, y_train, x_test, y_test, classes, str(path))


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """float32 (classes): inverse to the number of each class's `labels` int64 (n), 1 on average."""
    inverse = 1 / labels.cpu().bincount(minlength=classes).clamp(min=1).double()
    return (inverse / inverse.mean()).float()
