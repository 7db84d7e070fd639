"""Where the lines of a result go: standard output, or a file that is there whole or not at all."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from cifar_mlflow.errors import ConfigurationError


@contextmanager
def lines_to(path: str | None) -> Iterator[Callable[[str], None]]:
    """The function that writes lines, each at once to standard output, or to the file `path` (UTF-8).

    The file takes its name when all is written; if that is broken off, what was there before stays.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    if path is None:
        yield _print
        return
    if os.environ.get("MLFLOW_RUN_ID") and not Path(path).is_absolute():
        raise ConfigurationError(f"--output: {path!r} is relative; give an absolute path under `mlflow run`", "options")
    target = Path(os.path.realpath(path))
    in_place = target.exists() and not target.is_file()  # a pipe or /dev/null must not be replaced by a file
    part = target if in_place else target.with_name(f".{target.name}.{os.getpid()}.part")
    with _told(path):
        if target.is_dir():
            raise IsADirectoryError(0, "this is a directory")
        file = part.open("w", encoding="utf-8", newline="")

    def write(text: str) -> None:
        with _told(path):
            file.write(text)

    try:
        yield write
        with _told(path):
            file.close()
            if not in_place:
                part.replace(target)
    finally:
        with suppress(OSError):  # a full disk was told of when it was written to
            file.close()
        if not in_place:
            part.unlink(missing_ok=True)
    click.echo(f"written to {path}", err=True)


def _print(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout, end="")  # a bar on the same terminal stays intact
    sys.stdout.flush()


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"--output: {path} cannot be written: {error.strerror}", "options") from None
