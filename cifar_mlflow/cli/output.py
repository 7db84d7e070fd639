"""Where the lines of a result go: standard output, or a file that is there whole or not at all."""

import codecs
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import click

from cifar_mlflow.errors import ConfigurationError

STDOUT = "standard output"
ESCAPE = "cifar_mlflow.escape"  # how characters are written that an output's encoding does not have
COLOURS = {"error:": "red", "warning:": "yellow"}
PREFIX = re.compile("^(error|warning):", re.MULTILINE)
PLAIN = {"–": "-", "…": "...", "·": "-"}


class _Output(io.TextIOWrapper):
    """Standard output: what is wrong with it is told by its name."""

    def write(self, text: str) -> int:
        with _named():
            return super().write(text)

    def flush(self) -> None:
        with _named():
            super().flush()


def _coloured(prefix: re.Match[str]) -> str:
    return click.style(prefix[0], fg=COLOURS[prefix[0]])


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, STDOUT) from None


class _Messages(io.TextIOWrapper):
    """Standard error: a line that nobody can read any more, on a closed terminal or a full disk, ends no training.

    On a terminal, what begins an error or a warning is coloured, unless NO_COLOR (https://no-color.org) is set.
    """

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(PREFIX.sub(_coloured, text) if self._has_colours() else text)
        return len(text)

    def _has_colours(self) -> bool:
        return self.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def prepare_streams() -> None:
    """Has whatever is written to standard output and error arrive there as far as it can, and nowhere else."""
    closed = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # the next file that is opened would take its place, and all that is printed
            os.open(os.devnull, os.O_RDWR)
            closed.append(number)
    codecs.register_error(ESCAPE, _escape)
    if 1 in closed or isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _stream(1, sys.stdout, _Output)
    if 2 in closed or isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _stream(2, sys.stderr, _Messages)
    if 1 in closed:
        click.echo("warning: standard output is closed: what is printed there is shown nowhere", err=True)


def _stream(number: int, before: TextIO | None, kind: type[io.TextIOWrapper]) -> io.TextIOWrapper:
    binary = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
    return kind(binary, before.encoding if before else "utf-8", ESCAPE, line_buffering=True)


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(each) or ascii(each)[1:-1] for each in lacking), error.end


def output_fault(error: OSError) -> str | None:
    """What is wrong with standard output, if the error is about that; what it has not taken is given up."""
    if error.filename != STDOUT:
        return None
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (or the interpreter would try, and tell, again)
    return f"{STDOUT} cannot be written: {error.strerror}"


@contextmanager
def lines_to(path: str | None, inputs: Iterable[str | Path] = ()) -> Iterator[Callable[[str], None]]:
    """The function that writes lines, each at once to standard output, or to the file `path` (UTF-8) as `file_to`."""
    if path is None:
        yield _print
        return
    with file_to("--output", path, inputs) as write:
        write(b"")  # of no line it is an empty file
        yield lambda text: write(text.encode())


@contextmanager
def file_to(option: str, path: str, inputs: Iterable[str | Path] = ()) -> Iterator[Callable[[bytes], None]]:
    """The function that writes to the file that the option names.

    The file takes its name when all is written; if that is broken off, or nothing is written, what was there before
    stays.

    Raises:
        ConfigurationError: the file cannot be written, or is one of the command's `inputs`, or under `mlflow run` its
            path is relative.
    """
    if os.environ.get("MLFLOW_RUN_ID") and not Path(path).is_absolute():
        raise ConfigurationError(f"{option}: {path!r} is relative; give an absolute path under `mlflow run`", "options")
    target = Path(os.path.realpath(path))
    if any(target == Path(os.path.realpath(each)) for each in inputs):
        raise ConfigurationError(f"{option}: {path} would be overwritten, and is to be read; give another", "options")
    in_place = target.exists() and not target.is_file()  # a pipe or /dev/null must not be replaced by a file
    part = target if in_place else target.with_name(f".{target.name}.{os.getpid()}.part")
    with _told(option, path):
        if target.is_dir():
            raise IsADirectoryError(0, "this is a directory")
        file = part.open("wb")
    begun = False

    def write(content: bytes) -> None:
        nonlocal begun
        begun = True
        with _told(option, path):
            file.write(content)

    try:
        yield write
        with _told(option, path):
            file.close()
            if begun and not in_place:
                part.replace(target)
    finally:
        with suppress(OSError):  # a full disk was told of when it was written to
            file.close()
        if not in_place:
            part.unlink(missing_ok=True)
    if begun:
        click.echo(f"written to {path}", err=True)


def _print(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout, end="")  # a bar on the same terminal stays intact
    sys.stdout.flush()


@contextmanager
def _told(option: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{option}: {path} cannot be written: {error.strerror}", "options") from None
