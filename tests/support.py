"""What tests and fixtures call: a place of their own, a tiny dataset, the command line."""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from once import drawn_once, exported_once
from PIL import Image

TINY_CLASSES = 3
# Enough for the tiny dataset to be learned, in a fraction of a second.
TINY_TRAINING = ("--epochs", "3", "--batch-size", "8", "--scheduler", "none", "--precision", "float32")
# Ends in its first epoch.
DIVERGING = ("--learning-rate", "1e30", "--optimizer", "sgd", "--batch-norm", "false", "--activation", "relu")


class QuietServer(http.server.ThreadingHTTPServer):
    """Prints nothing of a client that has left before its answer: another test may be watching standard error."""

    def handle_error(self, request, client_address) -> None:
        pass


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


@contextlib.contextmanager
def standing_in(directory: Path) -> Iterator[Path]:
    """The current directory and environment of a command: nothing of the user's own store, state or cache."""
    before, environment = Path.cwd(), dict(os.environ)
    for name in [name for name in os.environ if name.startswith("MLFLOW_") or name == "CIFAR_MLFLOW_DEBUG"]:
        del os.environ[name]
    work = directory / "work"
    work.mkdir(exist_ok=True)
    os.environ["CIFAR_MLFLOW_STATE"] = str(directory / "state")
    os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
    os.chdir(work)
    try:
        yield work
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
        if "mlflow" in sys.modules:
            sys.modules["mlflow"].set_tracking_uri(None)
        if "mlflow.tracking.fluent" in sys.modules:  # that of mlflow.set_experiment
            sys.modules["mlflow.tracking.fluent"]._active_experiment_id = None


@functools.cache
def empty_tables() -> Path:
    """An SQLite database of MLflow's with nothing in its tables; made once a process."""
    from mlflow.store.db import utils

    look_at_migrations_once()
    directory = tempfile.mkdtemp(prefix="cifar-mlflow-tables-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{directory}/tables.db")
    # What MLflow itself calls for a new store; no public call makes the tables without an experiment among them.
    utils._initialize_tables(engine)
    engine.dispose()
    return Path(directory) / "tables.db"


def look_at_migrations_once() -> None:
    """MLflow imports all its 67 migrations whenever it opens a database, to know the last; from now on only once."""
    from mlflow.store.db import utils

    utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)


def with_tables(path: Path) -> Path:
    """Makes an SQLite database of MLflow's with nothing in its tables: making them takes seconds, copying none."""
    shutil.copy(empty_tables(), path)
    return path


def tiny_arrays(train=120, test=30, size=8, channels=3, seed=0) -> dict[str, np.ndarray]:
    """Noise of three kinds: the class says which third of the rows is bright."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % TINY_CLASSES
        pixels = rng.integers(0, 60, (count, size, size, channels), dtype=np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            third = size // TINY_CLASSES
            image[label * third : (label + 1) * third] += 150
        arrays |= {f"x_{part}": pixels, f"y_{part}": labels}
    return arrays


def run_here(*words: object) -> Outcome:
    """`cifar-mlflow WORDS` in this process: as a process of its own, less the five seconds of imports."""
    from cifar_mlflow import cli

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stdout, stderr = io.StringIO(), io.StringIO()
    code = 0
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout):
            patch.setattr(sys, "argv", ["cifar-mlflow", *map(str, words)])
            exports = exported_once() if words and words[0] in ("train", "reproduce") else contextlib.nullcontext()
            with contextlib.redirect_stderr(stderr), exports, drawn_once():
                cli.main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def move_store(source: Path, target: Path) -> None:
    """A copy of a store with its artifacts, which a test may damage."""
    shutil.copy(source / "mlflow.db", target / "mlflow.db")
    shutil.copytree(source / "mlruns", target / "mlruns", dirs_exist_ok=True)
    columns = {
        "experiments": "artifact_location",
        "runs": "artifact_uri",
        "logged_models": "artifact_location",
        "model_versions": "storage_location",
    }
    with contextlib.closing(sqlite3.connect(target / "mlflow.db")) as database:
        for table, column in columns.items():
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(source), str(target)))
        database.commit()
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()  # by run id: it would go on writing to the original


# What the first record of an outbox says.
RUN = {"experiment": "e", "name": "n", "tags": {"kind": "single"}, "timestamp": 1_790_000_000_000}


def line(kind: str, **values: Any) -> bytes:
    """A line of the old format's log."""
    text = json.dumps({"kind": kind, **values}).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def write_old(directory: Path, lines: list[bytes], delivered: bytes | None = None, run_id: bytes | None = None) -> None:
    """An outbox of the old format, byte for byte."""
    (directory / "payload").mkdir(parents=True)
    (directory / "records.log").write_bytes(b"".join(lines))
    for name, content in (("delivered", delivered), ("run_id", run_id)):
        if content is not None:
            (directory / name).write_bytes(content)


# ------------------------------------------------------------------------------------------------ folders of images

PHOTO_CLASSES = ("cat", "dog")


def photo(seed: int, size=(16, 16), mode="RGB") -> Image.Image:
    """A smooth picture of its own for each seed, so that no two are nearly the same."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(picture: Image.Image, form="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def write_photo(root: Path, path: str, seed: int, form="PNG", **options) -> Path:
    """A file with an image of `size` and `mode`."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(photo(seed, **options), form))
    return file


def write_classes(root: Path, count=20, classes=PHOTO_CLASSES, part="", first=0, **options) -> Path:
    """DIR/CLASS/*, `count` images of each class; with a `part`, DIR/PART/CLASS/*."""
    for label, name in enumerate(classes):
        for number in range(count):
            seed = first + 1000 * label + number
            write_photo(root, f"{part}/{name}/{seed:05d}.png".lstrip("/"), seed, **options)
    return root


def write_parts(root: Path, count=10, parts=("train", "test"), classes=PHOTO_CLASSES, **options) -> Path:
    for number, part in enumerate(parts):
        write_classes(root, count, classes, part, first=100_000 * (number + 1), **options)
    return root


class InlineExecutor:
    """Trains in this process, one run after the other, in the place of worker processes that take seconds to start."""

    def __init__(self, count, threads, task, *rest, **options) -> None:
        from cifar_mlflow.jobs.sweeping import trial

        self._task, self._given = task, None
        trial._store.cache_clear()  # that of an earlier test
        os.environ.pop("MLFLOW_RUN_ID", None)  # which no worker inherits

    def __enter__(self) -> InlineExecutor:
        return self

    def __exit__(self, *ending) -> None:
        pass

    @property
    def idle(self) -> int:
        return self._given is None

    def submit(self, task_id, argument) -> None:
        self._given = task_id, argument

    def events(self, timeout):
        from cifar_mlflow.tuning.executors import Event

        (task_id, argument), self._given = self._given, None
        try:
            yield Event("done", task_id, self._task(argument, lambda event: True), None)
        except Exception as error:
            yield Event("failed", task_id, str(error), None)
