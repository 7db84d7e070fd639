"""CIFAR-100, MNIST, Fashion-MNIST and SVHN: found on disk or downloaded, checked by the official md5s, and read, all by
torchvision's own loaders and with the md5s that torchvision has."""

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_mlflow.directories import cache_directory
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data.cifar10 import ENVIRONMENT_VARIABLE
from cifar_mlflow.process_state import DOWNLOAD_TIMEOUT, socket_timeout
from cifar_mlflow.text import first_line

SYSTEM = Path("/usr/share/datasets")  # where Debian's package dataset-fashion-mnist puts its files
# md5s of the content of MNIST's and Fashion-MNIST's files, which others, as Debian, have packed once more.
CONTENT = {
    "train-images-idx3-ubyte.gz": ("6bbc9ace898e44ae57da46a324031adb", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "train-labels-idx1-ubyte.gz": ("a25bea736e30d166cdddb491f175f624", "9018921c3c673c538a1fc5bad174d6f9"),
    "t10k-images-idx3-ubyte.gz": ("2646ac647ad5339dbf082846283269ea", "8181f5470baa50b63fa0f6fddb340f0a"),
    "t10k-labels-idx1-ubyte.gz": ("27ae3e4e09519cfbb04c329615203637", "15d484375f8d13e6eb1aabb0c3f46965"),
}
_Read = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...], str]


@dataclass(frozen=True)
class _Named:
    """A dataset: what it is called, torchvision's class, where that puts its files below its root, where others do.

    `splits` are torchvision's words for the training and the test images.
    """

    title: str
    loader: str
    folder: str
    elsewhere: tuple[str, ...]
    splits: tuple[Mapping[str, Any], Mapping[str, Any]] = ({"train": True}, {"train": False})

    def files(self) -> dict[str, str]:
        """The official files and their md5s."""
        kind = self.kind()
        if self.loader == "SVHN":
            return {kind.split_list[part][1]: kind.split_list[part][2] for part in ("train", "test")}
        if self.loader == "CIFAR100":
            return dict([*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])])
        return dict(kind.resources)

    def kind(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.loader)

    def find(self, directory: Path) -> Path | None:
        """Where below the directory all the files are, if they are: a directory, or the archive of them."""
        places = [directory / part for part in (self.folder, *self.elsewhere, "")]
        folders = (place for place in places if all((place / name).is_file() for name in self.files()))
        archive = directory / self.kind().filename if self.loader == "CIFAR100" else None
        return next(folders, archive if archive and archive.is_file() else None)


_SVHN_SPLITS = ({"split": "train"}, {"split": "test"})
DATASETS = {
    "cifar100": _Named("CIFAR-100", "CIFAR100", "cifar-100-python", ()),
    "mnist": _Named("MNIST", "MNIST", "MNIST/raw", ("mnist",)),
    "fashion_mnist": _Named("Fashion-MNIST", "FashionMNIST", "FashionMNIST/raw", ("fashion-mnist", "fashion_mnist")),
    "svhn": _Named("SVHN", "SVHN", "", ("svhn",), _SVHN_SPLITS),
}


def read(name: str, data_dir: str) -> _Read:
    """x_train, y_train, x_test, y_test, the class names, and where they were read.

    The images are uint8 (n, height, width, channels), the labels int64.

    Raises DataError if the dataset is not there and cannot be downloaded, or a file is not the official one.
    """
    dataset = DATASETS[name]
    place = locate(name, data_dir)
    _check_files(dataset, place)
    with tempfile.TemporaryDirectory(prefix="cifar-mlflow-") as root:
        _lay_out(dataset, place, Path(root))
        (x_train, y_train), (x_test, y_test) = (_arrays(dataset.kind()(root, **split)) for split in dataset.splits)
        return x_train, y_train, x_test, y_test, _classes(dataset, root), str(place)


def locate(name: str, data_dir: str = "auto", timeout: float = DOWNLOAD_TIMEOUT) -> Path:
    """The directory that holds the files, or their archive.

    It is in `data_dir`; else in $CIFAR_MLFLOW_DATA, the user's cache or `SYSTEM`, whichever has it first. Only the
    cache is downloaded to. `timeout` is the longest silence of the server, in seconds.

    Raises DataError if they are not there, and there is no download of them either.
    """
    dataset, given = DATASETS[name], os.environ.get(ENVIRONMENT_VARIABLE, "")
    places = [Path(os.path.expanduser(given))] if given else []
    places += [cache_directory() / name, SYSTEM]
    if data_dir != "auto":
        places = [Path(os.path.expanduser(data_dir))]
    for place in places:
        if found := dataset.find(place):
            return found
    if data_dir == "auto":
        return _download(dataset, cache_directory() / name, timeout)
    needed = ", ".join(dataset.files())
    raise DataError(f"{data_dir} (--data-dir) does not hold the files of {dataset.title}; put there {needed}")


def _check_files(dataset: _Named, place: Path) -> None:
    archived = {"": dataset.kind().tgz_md5} if place.is_file() else {}
    for name, md5 in (archived or dataset.files()).items():
        try:
            is_official = _md5(open, place / name) == md5 or (
                name in CONTENT and _md5(gzip.open, place / name) == CONTENT[name][dataset.loader == "FashionMNIST"]
            )
        except (gzip.BadGzipFile, EOFError, zlib.error):
            is_official = False
        except OSError as error:
            raise DataError(f"{place / name} cannot be read: {error.strerror}") from None
        if not is_official:
            raise DataError(
                f"{place / name} is not the official file of {dataset.title} (its md5 differs); "
                "delete it and fetch it again"
            )


def _md5(opened: Callable[..., Any], path: Path) -> str:
    with opened(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _lay_out(dataset: _Named, place: Path, root: Path) -> None:
    """Makes of `root` what torchvision looks for, by links, and unpacks there what it wants unpacked."""
    from torchvision.datasets.utils import extract_archive

    if place.is_file():
        extract_archive(str(place), str(root))
        return
    folder = root / dataset.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in dataset.files():
        if name.endswith(".gz"):
            extract_archive(str(place / name), str(folder))
        else:
            (folder / name).symlink_to((place / name).absolute())


def _arrays(loaded: Any) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(loaded.data)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.shape[1] == 3 and pixels.shape[3] != 3:  # as SVHN has them
        pixels = pixels.transpose(0, 2, 3, 1)
    labels = loaded.labels if hasattr(loaded, "labels") else loaded.targets
    return pixels, np.asarray(labels, dtype=np.int64)


def _classes(dataset: _Named, root: str) -> tuple[str, ...]:
    """torchvision's names, but of digits their figures alone."""
    if dataset.loader == "SVHN":
        return tuple("0123456789")
    kind = dataset.kind()
    names = kind(root).classes if dataset.loader == "CIFAR100" else kind.classes
    return tuple(name.partition(" - ")[0] for name in names)


def _download(dataset: _Named, cache: Path, timeout: float) -> Path:
    """Has torchvision download the files, with its bar; they are in the cache whole or not at all."""
    from filelock import FileLock

    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"), socket_timeout(timeout):
            if found := dataset.find(cache):  # another process was at it
                return found
            partial = cache.with_name(f"{cache.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            for split in dataset.splits:
                dataset.kind()(str(partial), download=True, **split)
            shutil.rmtree(cache, ignore_errors=True)
            partial.replace(cache)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{dataset.title} is not on this machine and could not be downloaded ({_reason(error)}).\n"
            f"Put the files {', '.join(dataset.files())} into a directory and name it by --data-dir or "
            f"${ENVIRONMENT_VARIABLE}, or use --dataset digits, which needs no files."
            + (" Debian's package dataset-fashion-mnist has them." if dataset.loader == "FashionMNIST" else "")
        ) from None
    found = dataset.find(cache)
    assert found is not None
    return found


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or first_line(error))
