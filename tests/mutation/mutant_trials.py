"""Trying mutants: a copy of the repository, and processes forked from one that has imported torch and MLflow."""

import ctypes
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from coverage import Coverage

ROOT = Path(__file__).resolve().parents[2]
PR_SET_CHILD_SUBREAPER = 36  # see prctl(2)


class TestsFail(Exception):
    """The tests of a room fail without any mutant."""

    __test__ = False


class Copy:
    """A copy of the repository, and the processes that try mutants in it."""

    def __init__(self, directory: Path) -> None:
        self.copy, self._directory = directory / "copy", directory
        unwanted = shutil.ignore_patterns(
            ".git", ".venv*", "mlruns", "mlartifacts", "mlflow.db*", "__pycache__", "*.npz"
        )
        shutil.copytree(ROOT, self.copy, ignore=unwanted, symlinks=True)

    def baseline(self, patterns: list[str], chosen: str) -> tuple[dict[str, float], dict[str, dict[int, set[str]]]]:
        """The seconds of each test in the files that match, if -k has `chosen` it, and the tests that reach each line.

        Lines that run on import count as reached by every test that reaches the module.
        """
        found = [path for pattern in patterns for path in sorted((self.copy / "tests").glob(pattern))]
        words = [str(path.relative_to(self.copy)) for path in found]
        result = self._directory / "baseline.json"
        code, output = self._run([*words, "-k", chosen], 1800, str(result))
        if code != 0:
            raise TestsFail(f"{' '.join(words)} fail without any fault:\n{output[-3000:]}")
        seen = json.loads(result.read_text())
        return seen["seconds"], {
            module: {int(line): set(tests) for line, tests in lines.items()} for module, lines in seen["lines"].items()
        }

    def try_out(self, module: str, source: str, tests: list[str], seconds: float) -> str:
        """What the tests say of the module with this source: noticed, survived or timed out."""
        path = self.copy / "cifar_mlflow" / module
        whole = path.read_bytes()
        try:
            path.write_text(source)
            self._forget(path)
            return {0: "survived", None: "timed out"}.get(self._run(["-x", *tests], seconds)[0], "noticed")
        finally:
            path.write_bytes(whole)
            self._forget(path)

    @staticmethod
    def _forget(path: Path) -> None:
        """The compiled file, which by size and second of change could seem to belong to the new text."""
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()

    def _run(self, words: list[str], seconds: float, coverage_to: str = "") -> tuple[int | None, str]:
        """pytest in a forked process: its code (None: it was killed after `seconds`), and what it printed."""
        shutil.rmtree(self._directory / "tmp", ignore_errors=True)
        output = self._directory / "output.txt"
        options = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-m", "not long"]
        child = os.fork()
        if child == 0:
            if sys.platform == "linux":  # what a test leaves behind becomes a child of this process, and ends with it
                ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(self.copy)
            os.environ |= {"PYTHONPATH": str(self.copy), "TMPDIR": str(self._directory)}
            tempfile.tempdir = None
            sys.path[:] = [str(self.copy), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
            code = _pytest([*options, f"--basetemp={self._directory / 'tmp'}", *words], coverage_to)
            sys.stdout.flush()
            _kill(psutil.Process().children(recursive=True))
            os._exit(code)
        code = _wait(child, seconds)
        return code, output.read_text(errors="replace")


def _pytest(words: list[str], coverage_to: str) -> int:
    if not coverage_to:
        return int(pytest.main(words))
    measured = Coverage(data_file=None, source=["cifar_mlflow"])
    plugin = Reached(measured.switch_context)
    measured.start()
    code = int(pytest.main(words, plugins=[plugin]))
    measured.stop()
    data = measured.get_data()
    lines = {
        str(Path(file).relative_to(Path.cwd() / "cifar_mlflow")): plugin.by_line(data.contexts_by_lineno(file))
        for file in data.measured_files()
    }
    Path(coverage_to).write_text(json.dumps({"seconds": plugin.seconds, "lines": lines}))
    return code


class Reached:
    """A plugin of pytest: the seconds of each test, and the tests that reach a line, themselves or by a fixture."""

    def __init__(self, switch: Callable[[str], None]) -> None:
        self._switch, self._at = switch, [""]
        self.seconds: dict[str, float] = {}
        self._users: dict[str, set[str]] = defaultdict(set)

    def by_line(self, contexts: dict[int, list[str]]) -> dict[int, list[str]]:
        named = {line: {test for each in found for test in self._tests(each)} for line, found in contexts.items()}
        everyone = set[str]().union(*named.values())
        return {line: sorted(tests or everyone) for line, tests in named.items()}

    def _tests(self, context: str) -> set[str]:
        return {context} if context in self.seconds else self._users[context]

    @contextmanager
    def _entered(self, context: str) -> Iterator[None]:
        self._at.append(context)
        self._switch(context)
        yield
        self._at.pop()
        self._switch(self._at[-1])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        for name in item.fixturenames:
            self._users[f"fixture {name}"].add(item.nodeid)
        started = time.monotonic()
        self.seconds[item.nodeid] = 0.0
        with self._entered(item.nodeid):
            result = yield
        self.seconds[item.nodeid] = time.monotonic() - started
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        shared = fixturedef.scope != "function"
        with self._entered(f"fixture {fixturedef.argname}") if shared else nullcontext():
            return (yield)


def _wait(child: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    # A server that a test has started is in a session of its own.
    _kill([*psutil.Process(child).children(recursive=True), psutil.Process(child)])
    os.waitpid(child, 0)
    return None


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
