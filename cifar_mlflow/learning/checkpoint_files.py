"""Files that hold how far a training is: there whole or not at all, checked by a digest, free of pickled code."""

import hashlib
import io
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from cifar_mlflow.errors import ModelError, TrainingError
from cifar_mlflow.text import first_line

MAGIC = b"cifar_mlflow checkpoint 1\n"
SUFFIX = ".checkpoint"
KEPT = 2


class Damaged(Exception):
    """A checkpoint file does not hold what was written to it."""


class Checkpoints:
    """The checkpoint files of one training, in a directory of their own; the last two are kept.

    A file is MAGIC, the SHA-256 of the rest (32 bytes), and the rest, as torch.save writes it. One process at a time
    may use the directory: its callers see to that.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._whole: list[Path] = []

    @property
    def last(self) -> Path | None:
        """The newest file that this object has written, or read and found whole."""
        return self._whole[-1] if self._whole else None

    def write(self, content: dict[str, Any]) -> None:
        """Adds a file with `content`: dicts, lists, tensors, numbers and strings.

        Raises TrainingError if it cannot be written, for want of space for example; the files before it are untouched.
        """
        buffer = io.BytesIO()
        torch.save(content, buffer)
        payload = buffer.getbuffer()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            number = max((int(path.stem) for path in self._files()), default=0) + 1
            path = self.directory / f"{number:06d}{SUFFIX}"
            _write_whole(path, [MAGIC, hashlib.sha256(payload).digest(), payload])
        except OSError as error:
            raise TrainingError(
                f"no checkpoint can be written to {self.directory} ({error.strerror}); make room there, or copy the "
                "directory elsewhere and set CIFAR_MLFLOW_STATE"
            ) from None
        self._whole = [*self._whole, path][-KEPT:]
        for old in self._files():
            if old not in self._whole:
                with suppress(OSError):  # one too many does no harm
                    old.unlink()

    def read(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest content that is whole, None if there is no file, and what is wrong with the files after it.

        Raises ModelError if there are files, and none is whole.
        """
        faults = []
        for path in reversed(self._files()):
            try:
                content = _read_whole(path)
            except Damaged as damage:
                faults.append(f"{path} is damaged ({damage})")
            else:
                self._whole = [path]
                return content, faults
        if faults:
            raise ModelError(
                f"no checkpoint is whole: {'; '.join(faults)}. Put a copy of one back, or remove {self.directory} to "
                "begin again with epoch 1"
            )
        return None, []

    def remove(self) -> None:
        """Removes the directory with all files; what cannot be removed stays."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self._whole = []

    def _files(self) -> list[Path]:
        """The oldest first."""
        return sorted(path for path in self.directory.glob(f"*{SUFFIX}") if path.stem.isdecimal())


def _write_whole(path: Path, parts: list[Any]) -> None:
    """Writes the file under another name, and gives it its own when all of it is on the disk."""
    part = path.with_name(f".{path.name}.part")  # one a directory: what a killed process left is written over
    try:
        with part.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    # The new name, too, must outlive a loss of power, before an old file is removed. Windows has no such call.
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_whole(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(error.strerror or "it cannot be read") from None
    start = len(MAGIC) + hashlib.sha256().digest_size
    if not data.startswith(MAGIC) or len(data) < start:
        raise Damaged("it does not begin as a checkpoint")
    payload = memoryview(data)[start:]
    if hashlib.sha256(payload).digest() != data[len(MAGIC) : start]:
        raise Damaged("its content does not match its digest")
    try:
        # Never the pickle that torch.load would otherwise run.
        content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # a file that was made to have a digest that fits
        raise Damaged(f"it cannot be loaded: {first_line(error)}") from None
    return content
