"""The commands of README.md and docs/: found in their fences, run in a clean directory, held against what is shown.

A fence of `sh` or `python`, and one with lines that begin with `$ `, is run. An HTML comment above it, which readers do
not see, says otherwise:

    <!-- not run: REASON -->        it is left out, and counted
    <!-- run by: TEST -->           the commands are of a cluster, which the file of that name has
    <!-- long -->                   only `make test-long` runs it
    <!-- before: COMMAND -->        this is run first ($SCENES is the script that makes what a page needs)
    <!-- beside TEXT: COMMAND -->   this runs meanwhile, from when it has printed TEXT
    <!-- Ctrl-C after TEXT -->      the first command is interrupted when it has printed TEXT
    <!-- with CIFAR-10 -->          it is left out where $CIFAR_MLFLOW_DATA does not say where that is
    <!-- on digits -->              `train` and `mlflow run` get the digits and one epoch
    <!-- varies -->                 of the output only lines without numbers and paths are compared

`python tests/docs/pages.py PAGE...` runs the pages and prints anew what they show.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "docs")]

import scenes  # noqa: E402
from comparing import RUN_ID, difference, lines_of, normalized, printed_anew  # noqa: E402

ON_DIGITS = {
    "cifar-mlflow train": " --dataset digits --epochs 1 --scheduler none",
    "mlflow run": " -P dataset=digits -P epochs=1 -P scheduler=none",
}


@dataclass
class Command:
    """A command as it stands on a page, and the lines that are shown below it: None if none are."""

    text: str
    shown: list[str] | None = None


@dataclass
class Fence:
    """What stands between two fences on a page: `first` and `last` are the lines of the fences themselves."""

    page: Path
    first: int
    last: int
    language: str
    body: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.first + 1}"

    def note(self, name: str) -> list[str]:
        """What the comments of this name say."""
        return [each.removeprefix(name).strip(" :") for each in self.notes if each.startswith(name)]

    def commands(self) -> list[Command]:
        if self.language == "python":
            return [Command("\n".join(self.body))]
        if self.language == "sh":
            lines = "\n".join(self.body).replace("\\\n", " ").split("\n")
            lines = _with_documents(lines)
            return [Command(line) for line in lines if line.strip() and not line.startswith("#")]
        found: list[Command] = []
        for line in self.body if not self.language else []:
            if line.startswith("$ "):
                found.append(Command(line[2:], []))
            elif found and _is_open(found[-1].text):
                found[-1].text += f"\n{line}"
            elif found:
                found[-1].shown.append(line)
        return found


def _with_documents(lines: list[str]) -> list[str]:
    """The lines of a script, those of a here-document as part of the command that reads it."""
    left, found = iter(lines), []
    for line in left:
        if here := re.search(r"<<'?(\w+)'?$", line):
            line = "\n".join([line, *itertools.takewhile(lambda each: each != here[1], left), here[1]])
        found.append(line)
    return found


def _is_open(command: str) -> bool:
    """Whether the command goes on in the next line."""
    try:
        shlex.split(command)
    except ValueError:
        return True
    return command.endswith("\\")


def fences(page: Path) -> list[Fence]:
    lines = page.read_text(encoding="utf-8").split("\n")
    found, notes, start = [], [], None
    for number, line in enumerate(lines):
        if line.startswith("```"):
            if start is None:
                start = number
            else:
                body = lines[start + 1 : number]
                found.append(Fence(page, start, number, lines[start].strip("` "), body, notes))
                notes, start = [], None
        elif start is None:
            note = re.fullmatch(r"<!-- (.*) -->", line)
            notes = [*notes, note[1]] if note else []
    return found


def pages() -> list[Path]:
    """README.md and every page of docs/ that is written by hand."""
    docs = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "Written by `make docs`" not in page.read_text()]
    return [ROOT / "README.md", *docs]


class Session:
    """One page after the other command, in the current directory; what `python` fences define is kept."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._latest = "RUN_ID"
        self._names: dict[str, object] = {"__name__": "__main__"}

    def run(self, text: str, *, python: bool = False, interrupted_after: str | None = None) -> tuple[int, str]:
        """The exit code, and what was printed to standard output and error."""
        text = RUN_ID.sub(lambda run: self._ids.get(run[0], self._latest), text).replace("RUN_ID", self._latest)
        if python:
            code, printed = self._python(text)
        elif interrupted_after is not None:
            code, printed = scenes.interrupted(text, after=interrupted_after)
        elif text.startswith("cifar-mlflow ") and not re.search(r"[|<>;&$]", text):
            code, printed = _in_process(shlex.split(text, comments=True)[1:])
        else:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "-c", text],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"PATH": path},
                check=False,
            )
            code, printed = done.returncode, done.stdout
        if made := re.findall(r"^run +([0-9a-f]{32})", printed, re.MULTILINE):
            self._latest = made[-1]
        return code, printed

    def _python(self, text: str) -> tuple[int, str]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(text, "page", "exec"), self._names)
            except Exception:
                printed.write(traceback.format_exc())
                return 1, printed.getvalue()
        return 0, printed.getvalue()

    def learn(self, shown: list[str], printed: list[str]) -> None:
        """Which of the ids that were made stands for which of those on the page."""
        left = list(printed)
        for line in shown:
            if not RUN_ID.search(line):
                continue
            same = [number for number, each in enumerate(left) if normalized(each) == normalized(line)]
            if same:
                self._ids |= zip(RUN_ID.findall(line), RUN_ID.findall(left.pop(same[0])), strict=True)


def _in_process(words: list[str]) -> tuple[int, str]:
    """`cifar-mlflow WORDS`, as a process of its own less the imports, with its two outputs in one."""
    import pytest

    from cifar_mlflow import cli

    printed, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cifar-mlflow", *words])
        patch.setattr("cifar_mlflow.cli.interrupt_at_signals", lambda: None)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
    return code, printed.getvalue()


def run(fence: Fence, session: Session, *, short: bool = False) -> Iterator[tuple[Command, str | None, list[str]]]:
    """Each command of the fence with what is wrong with it, if anything, and what it has printed.

    If `short`, those are left out that take a process with all imports, as `mlflow run`, which has tests of its own.
    """
    if "with CIFAR-10" in fence.notes and not os.environ.get("CIFAR_MLFLOW_DATA"):
        return
    for text in fence.note("before"):
        code, printed = session.run(text)
        if code:
            yield Command(text), f"ends with {code}", lines_of(printed)
    with contextlib.ExitStack() as beside:
        for note in fence.note("beside"):
            until, _, text = note.partition(": ")
            beside.enter_context(scenes.running(text, until=until))
        yield from _run_commands(fence, session, short=short)


def _run_commands(fence: Fence, session: Session, *, short: bool) -> Iterator[tuple[Command, str | None, list[str]]]:
    interruptions = fence.note("Ctrl-C after")
    for command in fence.commands():
        text = command.text
        if short and text.startswith("mlflow run"):
            continue
        for beginning, more in ON_DIGITS.items() if "on digits" in fence.notes else ():
            if text.startswith(beginning):
                text = re.sub(r" -P epochs=\d+", "", text.partition("  #")[0]) + more
        after = interruptions.pop() if interruptions else None
        code, printed = session.run(text, python=fence.language == "python", interrupted_after=after)
        shown, lines = command.shown, lines_of(printed)
        wanted = after is not None or any(line.startswith("error:") for line in shown or ())
        wrong = f"ends with {code}" if bool(code) != wanted else None
        if shown and not wrong:
            session.learn(shown, lines)
            wrong = difference(shown, lines, varies="varies" in fence.notes)
        yield command, wrong, lines


@contextlib.contextmanager
def clean_directory(directory: Path, *, short: bool) -> Iterator[None]:
    """A directory like a fresh clone's, less the package; if `short`, sweeps train for one epoch."""
    from support import standing_in

    with standing_in(directory) as work:
        shutil.copytree(ROOT / "experiments", work / "experiments")
        os.environ["SCENES"], os.environ["HOME"] = scenes.__file__, str(directory)
        (directory / ".config").mkdir()
        for name in ("MLproject", "conda.yaml"):
            shutil.copy(ROOT / name, work)
        if short:
            spec = work / "experiments" / "quick.yaml"
            spec.write_text(spec.read_text().replace("epochs: 3", "epochs: 1"))
        yield


def print_anew(page: Path) -> None:
    """Runs the page, and writes into it what its commands print now."""
    lines, session, shift = page.read_text(encoding="utf-8").split("\n"), Session(), 0
    for fence in fences(page):
        if fence.note("not run") or fence.note("run by") or not fence.commands():
            continue
        body: list[str] = []
        for command, wrong, printed in run(fence, session):
            print(f"{fence.where}: {command.text.splitlines()[0]}" + (f"\n    {wrong}" if wrong else ""))
            if wrong:
                print("\n".join(printed))
            if command.shown is not None:
                body += [*f"$ {command.text}".split("\n"), *printed_anew(command.shown, printed)]
        if body:
            lines[fence.first + 1 + shift : fence.last + shift] = body
            shift += len(body) - len(fence.body)
    page.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    import psutil

    psutil.cpu_percent = lambda interval=None, percpu=False: [0.0] if percpu else 0.0  # or it tells of the load
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as temporary, clean_directory(Path(temporary), short=False):
            print_anew((ROOT / name).resolve())
