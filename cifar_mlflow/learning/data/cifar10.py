"""CIFAR-10 (Krizhevsky, 2009): found on disk or downloaded, checked against the official md5s, read."""

import hashlib
import http.client
import os
import pickle
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cifar_mlflow.directories import cache_directory
from cifar_mlflow.errors import DataError
from cifar_mlflow.process_state import DOWNLOAD_TIMEOUT
from cifar_mlflow.records import Finding
from cifar_mlflow.text import first_line, redact

ENVIRONMENT_VARIABLE = "CIFAR_MLFLOW_DATA"
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
# Where they are published, the files in order, and all md5s: torchvision's, whose import takes a second and 170 MB.
URL, ARCHIVE_MD5 = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
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
    directory, _ = _named("auto")
    place = _find(directory or cache_directory())
    if place is None and directory:
        remedy = f"name the directory that holds {FOLDER} or {ARCHIVE}, or unset the variable"
        yield Finding("error", f"CIFAR-10 is not in {directory}, which ${ENVIRONMENT_VARIABLE} names", remedy)
    elif place is None:
        yield Finding("note", f"CIFAR-10 is not on this machine ({cache_directory()})", "cifar-mlflow download")
    else:
        try:
            for _ in _official_files(place):
                pass
        except DataError as error:
            yield Finding("error", str(error), f"delete {place} and run cifar-mlflow download")


def locate(data_dir: str = "auto", timeout: float = DOWNLOAD_TIMEOUT) -> Path:
    """The directory or archive that holds CIFAR-10: `data_dir`, else $CIFAR_MLFLOW_DATA, else the user's cache.

    The variable may also name the http address of such a directory, from which the cache is filled. Only the cache is
    downloaded to. `timeout` is the longest silence of the server, in seconds.

    Raises DataError if it is not there, and there is no download of it either.
    """
    return place_here(data_dir) or _download(cache_directory(), _named(data_dir)[1], timeout)


def place_here(data_dir: str = "auto") -> Path | None:
    """As `locate`, without a download: None if it needs one."""
    directory, _ = _named(data_dir)
    if found := _find(directory or cache_directory()):
        return found
    if directory is None:
        return None
    origin = f"${ENVIRONMENT_VARIABLE}" if data_dir == "auto" else "--data-dir"
    raise DataError(
        f"{directory} ({origin}) holds neither the folder {FOLDER} nor {ARCHIVE}; name the directory that does, "
        "or use --dataset digits, which needs no files"
    )


def _named(data_dir: str) -> tuple[Path | None, str]:
    """The directory, and the address, that are given: none, or one of them."""
    given = os.environ.get(ENVIRONMENT_VARIABLE, "") if data_dir == "auto" else data_dir
    if data_dir == "auto" and given.startswith(("http://", "https://")):
        return None, given.rstrip("/")
    return Path(os.path.expanduser(given)) if given else None, ""


def _find(directory: Path) -> Path | None:
    itself = [directory] if directory.name in (FOLDER, ARCHIVE) else []
    return next((path for path in (directory / FOLDER, directory / ARCHIVE, *itself) if path.exists()), None)


def _download(cache: Path, address: str, timeout: float) -> Path:
    """Fills the cache from `address`, else from where CIFAR-10 is published; it is there whole or not at all."""
    from filelock import FileLock

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{ARCHIVE}.lock"):
            if found := _find(cache):  # another process was at it
                return found
            if not address:
                return _fetch(URL, cache / ARCHIVE, ARCHIVE_MD5, timeout)
            try:
                return _fetch_folder(f"{address}/{FOLDER}", cache / FOLDER, timeout)
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
            return _fetch(f"{address}/{ARCHIVE}", cache / ARCHIVE, ARCHIVE_MD5, timeout)
    except (OSError, http.client.HTTPException) as error:
        where, reason = redact(address) or URL, getattr(error, "reason", None) or error
        raise DataError(
            f"CIFAR-10 is not on this machine and could not be downloaded from {where} ({reason}).\n"
            f"Give the directory that holds {FOLDER} or {ARCHIVE} by --data-dir or ${ENVIRONMENT_VARIABLE}, "
            "or use --dataset digits, which needs no files."
        ) from None


def _fetch_folder(address: str, folder: Path, timeout: float) -> Path:
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as directory:
        partial = Path(directory, folder.name)
        partial.mkdir()
        for name, md5 in {**META, **BATCHES}.items():
            _fetch(f"{address}/{name}", partial / name, md5, timeout)
        return partial.replace(folder)


def _fetch(address: str, path: Path, md5: str, timeout: float) -> Path:
    """Downloads a file, with a bar; OSError if it is not the official one."""
    from tqdm import tqdm

    partial, digest = path.with_name(f"{path.name}.partial"), hashlib.md5(usedforsecurity=False)
    with (
        urllib.request.urlopen(address, timeout=timeout) as answer,
        partial.open("wb") as file,
        tqdm(total=answer.length, desc=path.name, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar,
    ):
        while chunk := answer.read(2**20):
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != md5:
        partial.unlink()
        raise OSError(f"what it gives as {path.name} is not the official file, or not all of it")
    return partial.replace(path)
