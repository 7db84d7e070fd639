"""CIFAR-10 (Krizhevsky, 2009): found on disk or downloaded, checked against the official md5s, read."""

import hashlib
import os
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cifar_mlflow.directories import cache_directory
from cifar_mlflow.errors import DataError
from cifar_mlflow.process_state import DOWNLOAD_TIMEOUT, socket_timeout
from cifar_mlflow.records import Finding
from cifar_mlflow.text import first_line

ENVIRONMENT_VARIABLE = "CIFAR_MLFLOW_DATA"
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
# The files in order, and their md5s: torchvision's, whose import takes a second and 170 MB.
BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
META = {"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"}
IMAGES_IN_A_FILE = 10_000


def read(data_dir: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...], str]:
    """x_train, y_train, x_test, y_test, the class names, and where they were read.

    The images are uint8 (50000 or 10000, 32, 32, 3), the labels int64.

    Raises DataError if CIFAR-10 is not there and cannot be downloaded, or a file is not the official one.
    """
    place = locate(data_dir)
    # Each file goes to its place at once, so that no more than one of them is in memory twice.
    training_files = len(BATCHES) - 1
    x_train, x_test = (np.empty((files * IMAGES_IN_A_FILE, 32, 32, 3), np.uint8) for files in (training_files, 1))
    places = [*np.split(x_train, training_files), x_test]
    labels: list[np.ndarray] = []
    classes: tuple[str, ...] = ()
    for name, data in _official_files(place):
        # Unpickled only now that the bytes are known to be the official ones.
        content = pickle.loads(data, encoding="bytes")
        if name in META:
            classes = tuple(word.decode() for word in content[b"label_names"])
        else:
            places[len(labels)][:] = content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            labels.append(np.asarray(content[b"labels"], dtype=np.int64))
    return x_train, np.concatenate(labels[:-1]), x_test, labels[-1], classes, str(place)


def _official_files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each of CIFAR-10's files; DataError at the first that is not the official one."""
    is_folder = place.is_dir()
    archived = {} if is_folder else _archived(place)
    inside, remedy = ("", "") if is_folder else (f"{FOLDER}/", "delete the archive and ")
    for name, md5 in {**BATCHES, **META}.items():
        try:
            data = (place / name).read_bytes() if is_folder else archived[name]
        except (KeyError, FileNotFoundError):
            raise DataError(f"{place}: {inside}{name} is missing; {remedy}fetch CIFAR-10 again") from None
        except OSError as error:
            raise DataError(f"{place}: {name} cannot be read: {error.strerror}; fetch CIFAR-10 again") from None
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise DataError(
                f"{place}: {name} is not the official file (its md5 differs); delete it and fetch CIFAR-10 again"
            )
        yield name, data


def _archived(place: Path) -> dict[str, bytes]:
    """Name and content of the files in CIFAR-10's archive, of which nothing is ever unpacked to disk."""
    try:
        with tarfile.open(place) as archive:
            wanted = (member for member in archive if member.isfile() and Path(member.name).parent.name == FOLDER)
            return {Path(member.name).name: file.read() for member in wanted if (file := archive.extractfile(member))}
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = first_line(error).rstrip(":")
        raise DataError(f"{place}: this archive is damaged ({reason}); delete it and fetch CIFAR-10 again") from None


def inspect() -> Iterator[Finding]:
    """What is wrong with CIFAR-10 where $CIFAR_MLFLOW_DATA says, else in the user's cache; nothing is downloaded."""
    given = os.environ.get(ENVIRONMENT_VARIABLE, "")
    directory = Path(os.path.expanduser(given)) if given else cache_directory()
    place = _find(directory)
    if place is None and given:
        remedy = f"name the directory that holds {FOLDER} or {ARCHIVE}, or unset the variable"
        yield Finding("error", f"CIFAR-10 is not in {directory}, which ${ENVIRONMENT_VARIABLE} names", remedy)
    elif place is None:
        yield Finding("note", f"CIFAR-10 is not on this machine ({directory})", "cifar-mlflow download")
    else:
        try:
            for _ in _official_files(place):
                pass
        except DataError as error:
            yield Finding("error", str(error), f"delete {place} and run cifar-mlflow download")


def locate(data_dir: str = "auto", timeout: float = DOWNLOAD_TIMEOUT) -> Path:
    """The directory or archive that holds CIFAR-10: `data_dir`, else $CIFAR_MLFLOW_DATA, else the user's cache.

    Only the cache is downloaded to. `timeout` is the longest silence of the server, in seconds.

    Raises DataError if it is not there, and there is no download of it either.
    """
    given = os.environ.get(ENVIRONMENT_VARIABLE, "") if data_dir == "auto" else data_dir
    if found := _find(Path(os.path.expanduser(given)) if given else cache_directory()):
        return found
    if not given:
        return _download(cache_directory(), timeout)
    origin = f"${ENVIRONMENT_VARIABLE}" if data_dir == "auto" else "--data-dir"
    raise DataError(
        f"{given} ({origin}) holds neither the folder {FOLDER} nor {ARCHIVE}; name the directory that does, "
        "or use --dataset digits, which needs no files"
    )


def _find(directory: Path) -> Path | None:
    itself = [directory] if directory.name in (FOLDER, ARCHIVE) else []
    return next((path for path in (directory / FOLDER, directory / ARCHIVE, *itself) if path.exists()), None)


def _download(cache: Path, timeout: float) -> Path:
    from filelock import FileLock
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_url

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{ARCHIVE}.lock"), socket_timeout(timeout):
            if not (cache / ARCHIVE).exists():
                partial = cache / f"{ARCHIVE}.partial"
                download_url(CIFAR10.url, str(cache), filename=partial.name, md5=CIFAR10.tgz_md5)
                partial.replace(cache / ARCHIVE)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"CIFAR-10 is not on this machine and could not be downloaded from {CIFAR10.url} ({reason}).\n"
            f"Give the directory that holds {FOLDER} or {ARCHIVE} by --data-dir or ${ENVIRONMENT_VARIABLE}, "
            "or use --dataset digits, which needs no files."
        ) from None
    return cache / ARCHIVE
