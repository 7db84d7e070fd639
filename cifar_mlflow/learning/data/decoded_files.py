"""The images of a folder, decoded once in all cores and kept in the user's cache, so that a second start takes seconds.

An entry of the cache is a directory, which takes its name when it is whole: PLACE.KEY, digests of the folder and of how
its files were decoded, and of their names, sizes and times. It holds the pixels of all images one after the other, and
a table of what each file was. Each image is checked against its digest when it is read. A new entry replaces what there
was of the same place, so that a folder that often changes is there once; what nobody has used for `DAYS_KEPT` is
removed.
"""

import hashlib
import math
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock, Timeout
from PIL import __version__ as pillow_version

from cifar_mlflow.directories import cache_directory, no_room
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import duplicates, image_files
from cifar_mlflow.learning.data.folder_tree import ImageFile
from cifar_mlflow.learning.data.image_files import Decoded, Skipped

VERSION = 2  # of the entries; another one is read by nobody
DAYS_KEPT = 30
SECONDS_BETWEEN_LOOKS = 0.5  # at what another process writes
AT_ONCE, AT_ONCE_BYTES = 16, 2**20  # images, and their pixels, that a thread decodes without a word to the others
AHEAD = 2  # such groups a thread that are decoded before they are written
PIXELS, TABLE = "pixels", "files.npz"

_Result = TypeVar("_Result")
Bar = Callable[[int, str, str], AbstractContextManager[Callable[[int], object]]]


def no_bar(total: int, description: str, unit: str) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda count: None)


class DecodedFiles:
    """What became of each file, in their order: arrays with one entry a file; `shape` is (height, width, channels).

    `digest` and `pixel_digest` are uint8 (files, 16), of its bytes and of its pixels; `perceptual_hash` is uint64, that
    of `duplicates`; `size` is its own (width, height); `reason` says why it cannot be read, and is empty if it can.
    """

    def __init__(self, directory: Path) -> None:
        """Reads the table in the directory; ValueError, OSError or KeyError if it is not what was written there."""
        with np.load(directory / TABLE, allow_pickle=False) as table:
            self.digest, self.pixel_digest, self.perceptual_hash, self.size, self.gray, self.reason = (
                table[name] for name in ("digest", "pixel_digest", "perceptual_hash", "size", "gray", "reason")
            )
            height, width, channels = map(int, table["shape"])
        self.shape = (height, width, channels)
        self._path = directory / PIXELS
        if self._path.stat().st_size != len(self.gray) * height * width * channels:
            raise ValueError("the pixels are not all there")

    def pixels(self, rows: np.ndarray, channels: int) -> np.ndarray:
        """The images of these files, uint8 (rows, height, width, channels), of gray ones the first channel if need be.

        ValueError if one has changed since it was decoded.
        """
        images = np.empty((len(rows), *self.shape[:2], channels), np.uint8)
        size = math.prod(self.shape)
        digests = self.pixel_digest.tobytes()
        with self._path.open("rb", buffering=0) as file:
            one = np.empty(self.shape, np.uint8)
            for image, row in zip(images, rows.tolist(), strict=True):
                whole = image if channels == self.shape[2] else one
                file.seek(row * size)
                file.readinto(whole.data)
                if _digest(whole.data) != digests[16 * row : 16 * row + 16]:
                    raise ValueError(f"image {row} has changed on disk")
                if whole is one:
                    image[:] = one[..., :channels]
        return images

    def remove(self) -> None:
        shutil.rmtree(self._path.parent, ignore_errors=True)


@contextmanager
def decoded(
    root: Path, files: Sequence[ImageFile], shape: tuple[int, int, int], bar: Bar, warnings: list[str]
) -> Iterator[DecodedFiles]:
    """The files below `root`, each fitted to `shape`; within the block their pixels can be read.

    If the cache cannot be written, `warnings` gets to know, and they are decoded to a temporary place. DataError if
    that cannot be written either.
    """
    cache = cache_directory() / "images"
    entry = cache / f"{_place(root, files, shape)}.{_key(files)}"
    if found := _read(entry):
        yield found
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _turn(entry, len(files), shape, bar):
            if not _read(entry):  # another process may have been at it
                _remove_old(cache)
                shutil.rmtree(entry, ignore_errors=True)
                _write(root, files, shape, bar, entry)
                for other in cache.glob(entry.with_suffix(".*").name):
                    if other != entry and other.is_dir():
                        shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        told = no_room(error) or error.strerror
        warnings.append(f"{cache} cannot be written ({told}), so each start decodes all images anew")
    if found := _read(entry):
        yield found
        return
    with ExitStack() as after:
        try:
            directory = after.enter_context(tempfile.TemporaryDirectory(prefix="cifar-mlflow-images-"))
            _write(root, files, shape, bar, entry := Path(directory) / entry.name)
        except OSError as error:
            told = no_room(error) or f"no temporary file can be written: {error.strerror}"
            raise DataError(f"{root}: its images were decoded in vain: {told}") from None
        yield DecodedFiles(entry)


@contextmanager
def _turn(entry: Path, count: int, shape: tuple[int, int, int], bar: Bar) -> Iterator[None]:
    """Waits until no other process writes the entry; the bar shows how far that is."""
    lock = FileLock(entry.with_suffix(".lock"), timeout=SECONDS_BETWEEN_LOOKS)
    with ExitStack() as after:
        with suppress(Timeout):
            after.enter_context(lock)
        if not lock.is_locked:
            with bar(count, "decoding elsewhere", " images") as update:
                shown = 0
                while not lock.is_locked:
                    with suppress(Timeout):
                        after.enter_context(lock)
                    with suppress(OSError):
                        there = (entry.with_suffix(".partial") / PIXELS).stat().st_size // math.prod(shape)
                        update(max(there - shown, 0))
                        shown = max(there, shown)
        yield


def measured(root: Path, files: Sequence[ImageFile], bar: Bar) -> list[tuple[int, int] | None]:
    """(width, height) of each image, by what the files say of themselves; None of what is no image."""

    def measure(some: Sequence[ImageFile]) -> list[tuple[int, int] | None]:
        return [image_files.measure(root / file.path) for file in some]

    return [*chain.from_iterable(_in_all_cores(measure, files, "measuring", bar))]


def _place(root: Path, files: Sequence[ImageFile], shape: tuple[int, int, int]) -> str:
    parts = sorted({file.part for file in files})  # the test images alone are no other state of the whole
    total = hashlib.blake2b(f"{VERSION} {pillow_version} {shape} {parts}".encode(), digest_size=8)
    total.update(os.fsencode(root.absolute()))
    return total.hexdigest()


def _key(files: Sequence[ImageFile]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        total.update(os.fsencode(file.path) + f"\0{file.size} {file.times}\0".encode())
    return total.hexdigest()


def _read(entry: Path) -> DecodedFiles | None:
    try:
        found = DecodedFiles(entry)
        os.utime(entry)
    except Exception:  # numpy, zipfile and zlib raise classes of their own for what is damaged
        return None
    return found


def _remove_old(cache: Path) -> None:
    """Removes what nobody has used for long, or a killed process has begun to write."""
    for path in cache.iterdir():
        with suppress(OSError):
            days = 1 if path.suffix == ".partial" else DAYS_KEPT
            if path.stat().st_mtime < time.time() - days * 24 * 3600:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(root: Path, files: Sequence[ImageFile], shape: tuple[int, int, int], bar: Bar, entry: Path) -> None:
    """Decodes the files into the directory `entry`, which is there whole or not at all."""
    partial = entry.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    at_once = min(max(1, AT_ONCE_BYTES // math.prod(shape)), AT_ONCE)
    columns: list[dict[str, np.ndarray]] = []
    try:
        with (partial / PIXELS).open("wb") as out:
            for pixels, rows in _in_all_cores(lambda some: _decode(root, some, shape), files, "decoding", bar, at_once):
                out.write(pixels.data)
                columns.append(rows)
        whole = {name: np.concatenate([rows[name] for rows in columns]) for name in columns[0]}
        np.savez(partial / TABLE, allow_pickle=False, shape=shape, **whole)
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _decode(
    root: Path, files: Sequence[ImageFile], shape: tuple[int, int, int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The pixels of some files, black where there are none, and what the table has of them."""
    results = [image_files.decode(root / file.path, shape) for file in files]
    none = Decoded(np.zeros(shape, np.uint8), bytes(16), (0, 0), False)
    images = [none if isinstance(result, Skipped) else result for result in results]
    pixels = np.stack([image.pixels for image in images])
    digests = ([image.digest for image in images], [_digest(each.data) for each in pixels])
    digest, pixel_digest = (np.frombuffer(b"".join(each), np.uint8).reshape(-1, 16) for each in digests)
    return pixels, {
        "digest": digest,
        "pixel_digest": pixel_digest,
        "perceptual_hash": duplicates.perceptual_hashes(pixels),
        "size": np.array([image.size for image in images], np.int32),
        "gray": np.array([image.gray for image in images]),
        "reason": np.array([result.reason if isinstance(result, Skipped) else "" for result in results]),
    }


def _in_all_cores(
    work: Callable[[Sequence[ImageFile]], _Result],
    files: Sequence[ImageFile],
    what: str,
    bar: Bar,
    at_once: int = AT_ONCE,
) -> Iterator[_Result]:
    """What `work` makes of each `at_once` files, in order.

    Threads will do: Pillow lets others run while it decodes. Their words with each other for every single file would
    take a fifth of the time.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    groups = [files[start : start + at_once] for start in range(0, len(files), at_once)]
    with image_files.strict(), bar(len(files), what, " images") as update:
        pool, begun = ThreadPoolExecutor(threads), deque[Future[_Result]]()
        try:
            for number in range(len(groups) + AHEAD * threads):
                begun += [pool.submit(work, group) for group in groups[number : number + 1]]
                if begun and number >= AHEAD * threads:
                    yield begun.popleft().result()
                    update(len(groups[number - AHEAD * threads]))
        finally:
            pool.shutdown(cancel_futures=True)


def _digest(data: memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
