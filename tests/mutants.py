"""Small faults put into the package by a machine, one at a time: how many of them do the tests of the room notice?

A seeded sample of the mutants that cosmic-ray's operators make, the same number for each room of ROOMS, spread over its
places. Each is written into a copy of the repository and tried by the room's tests that reach its line, the quickest
first, in a process forked from one that has imported torch and MLflow. What cannot be noticed stands, with the reason,
in equivalent_mutants.yaml. `make mutants`, or `make mutants ARGS="--room tuning --seed 1"`.
"""

import argparse
import ast
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import MutationVisitor, mutate_code
from cosmic_ray.operators.provider import OperatorProvider
from coverage import Coverage

ROOT = Path(__file__).resolve().parent.parent
# Each room's files, and the tests that belong to them, by patterns under cifar_mlflow/ and tests/.
ROOMS = {
    "config": (["config/*.py"], ["config"]),
    "analysis": (["analysis/*.py"], ["analysis/test_*.py"]),
    "analysis/comparison": (["analysis/comparison/*.py"], ["analysis/comparison"]),
    "tracking": (["tracking/*.py"], ["tracking/test_*.py"]),
    "tracking/outbox": (["tracking/outbox/*.py"], ["tracking/outbox"]),
    "tracking/reading": (
        ["tracking/reading/*.py"],
        ["tracking/reading", "jobs/test_compare*.py", "jobs/test_doctor*.py"],
    ),
    "tracking/registry": (["tracking/registry/*.py"], ["tracking/registry", "jobs/test_promote*.py"]),
    "tracking/writing": (["tracking/writing/*.py"], ["tracking/writing"]),
    "tuning": (["tuning/*.py"], ["tuning"]),
    "jobs/sweeping": (["jobs/sweeping/*.py"], ["jobs/sweeping"]),
    "jobs/promotion": (["jobs/promotion/*.py"], ["jobs/promotion", "jobs/test_promote*.py"]),
    "learning/data": (["learning/data/*.py"], ["learning/data"]),
    "checkpoint files": (
        ["learning/checkpoint_files.py"],
        ["learning/test_checkpoint_files.py", "learning/test_resuming.py"],
    ),
}
# What runs, in part, in processes of its own, where no line is seen: all tests of the room are run.
OUT_OF_SIGHT = ("tuning/executors.py", "jobs/sweeping/trial.py", "tracking/registry/smoke_process.py")
EQUIVALENTS = ROOT / "tests" / "equivalent_mutants.yaml"
PRELOADED = [
    "torch._inductor",
    "torch.export._trace",
    "matplotlib.backends.backend_agg",
    "mlflow.pytorch",
    "mlflow.pyfunc",
    "sklearn.datasets",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna",
    "pydantic",
    "click",
    "scipy.stats",
    "torchvision",
    "hypothesis",
    "alembic",
    "tqdm",
]
# Left out: mutants that no one would write by mistake.
UNLIKELY = ("Variable", "RShift", "LShift", "BitXor", "BitAnd_", "_Is", "_Invert", "UAdd")


@dataclass(frozen=True)
class Mutant:
    """One fault: `source` is the whole file with it; `was` and `becomes` are the line before and after."""

    room: str
    module: str
    line: int
    was: str
    becomes: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}\n    - {self.was}\n    + {self.becomes}"


def mutants_of(room: str, count: int, seed: int) -> list[Mutant]:
    """A sample of the room's mutants: a place drawn at random from its files, then one of the faults possible there."""
    places: dict[tuple[Path, tuple[int, int]], list[tuple[str, int]]] = defaultdict(list)
    for path in sorted(path for pattern in ROOMS[room][0] for path in (ROOT / "cifar_mlflow").glob(pattern)):
        for name in (each for each in OperatorProvider() if not any(word in each for word in UNLIKELY)):
            for occurrence, position in enumerate(positions(path.read_text(), name)):
                places[path, position].append((name, occurrence))
    chance, found = random.Random(f"{seed} {room}"), []
    order = list(places)
    chance.shuffle(order)
    for path, position in order:
        mutant = _mutant(room, path, *chance.choice(places[path, position]))
        found += [mutant] if mutant else []
        if len(found) == count:
            break
    return found


def positions(source: str, operator: str) -> Iterator[tuple[int, int]]:
    """Where the operator acts, in the order of its occurrences."""
    found = []

    class Places(MutationVisitor):
        def visit(self, node: Any) -> Any:
            found.extend(start for start, _ in self.operator.mutation_positions(node))
            return node

    Places(-1, OperatorProvider()[operator]()).walk(get_ast(source))
    yield from found


def _mutant(room: str, path: Path, operator: str, occurrence: int) -> Mutant | None:
    source = path.read_text()
    changed = mutate_code(source, OperatorProvider()[operator](), occurrence)
    try:
        if changed is None or meaning(changed) == meaning(source):
            return None
    except SyntaxError:
        return None
    changed = changed.replace("CosmicRayTestingException", "ZeroDivisionError")
    pairs = enumerate(zip(source.splitlines(), changed.splitlines(), strict=False), 1)
    line, (was, becomes) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    return Mutant(room, str(path.relative_to(ROOT / "cifar_mlflow")), line, was.strip(), becomes.strip(), changed)


@cache
def meaning(source: str) -> str:
    """The code without what has no effect when it runs: annotations, and imports for the type checker."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.test, node.body, node.orelse = ast.Constant(0), [ast.Pass()], []
    return ast.dump(tree)


class Tests:
    """A copy of the repository, and the processes that try mutants in it."""

    def __init__(self, directory: Path) -> None:
        self.copy, self._directory = directory / "copy", directory
        unwanted = shutil.ignore_patterns(
            ".git", ".venv*", "mlruns", "mlartifacts", "mlflow.db*", "__pycache__", "*.npz"
        )
        shutil.copytree(ROOT, self.copy, ignore=unwanted, symlinks=True)

    def baseline(self, room: str) -> tuple[dict[str, float], dict[str, dict[int, set[str]]]]:
        """The seconds of each test of the room, and the tests that reach each line of each module.

        Lines that run on import count as reached by every test that reaches the module.
        """
        patterns = [f"tests/{pattern}" for pattern in ROOMS[room][1]]
        words = [str(path.relative_to(self.copy)) for each in patterns for path in sorted(self.copy.glob(each))]
        result = self._directory / "baseline.json"
        code, output = self._run(words, 1800, str(result))
        if code != 0:
            sys.exit(f"the tests of {room} fail without any fault:\n{output[-3000:]}")
        found = json.loads(result.read_text())
        return found["seconds"], {
            module: {int(line): set(tests) for line, tests in lines.items()} for module, lines in found["lines"].items()
        }

    def try_out(self, mutant: Mutant, tests: list[str], seconds: float) -> str:
        """noticed, survived or timed out."""
        path = self.copy / "cifar_mlflow" / mutant.module
        whole = path.read_bytes()
        try:
            path.write_text(mutant.source)
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
            os.setsid()
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(self.copy)
            os.environ |= {"PYTHONPATH": str(self.copy), "TMPDIR": str(self._directory)}
            tempfile.tempdir = None
            sys.path[:] = [str(self.copy), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
            code = _pytest([*options, f"--basetemp={self._directory / 'tmp'}", *words], coverage_to)
            sys.stdout.flush()
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
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def selected(mutant: Mutant, seconds: dict[str, float], lines: dict[str, dict[int, set[str]]]) -> list[str]:
    """The tests that reach the mutant's line, the quickest first."""
    reached = lines.get(mutant.module, {})
    # A statement of several lines is known by its first.
    start = max((line for line in reached if line <= mutant.line), default=0)
    tests = reached.get(start, set())
    if not tests and mutant.module.endswith(OUT_OF_SIGHT):
        tests = set(seconds)
    return sorted(tests, key=seconds.__getitem__)


def try_room(room: str, count: int, seed: int) -> list[tuple[Mutant, str]]:
    """What came of each mutant of the room's sample: noticed, survived, timed out, equivalent or no test."""
    listed = yaml.safe_load(EQUIVALENTS.read_text())
    equivalent = {(entry["module"], entry["was"], entry["becomes"]) for entry in listed}
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        tests = Tests(Path(directory))
        seconds, lines = tests.baseline(room)
        for mutant in mutants_of(room, count, seed):
            names = selected(mutant, seconds, lines)
            if (mutant.module, mutant.was, mutant.becomes) in equivalent:
                result = "equivalent"
            elif not names:
                result = "no test"
            else:
                result = tests.try_out(mutant, names, 20 + 5 * sum(seconds[name] for name in names))
            results.append((mutant, result))
            if result in ("survived", "no test"):
                print(f"{result}: {mutant}", flush=True)
    print(_row(room, results), flush=True)
    return results


def _row(room: str, results: list[tuple[Mutant, str]]) -> str:
    found = Counter(result for _, result in results)
    noticed, tried = found["noticed"] + found["timed out"], len(results) - found["equivalent"]
    share = f"{100 * noticed / tried:.0f}%" if tried else "-"
    return f"| {room} | {len(results)} | {found['equivalent']} | {noticed} | {tried - noticed} | {share} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--room", action="append", choices=ROOMS, help="only this room; may be given again")
    parser.add_argument("--count", type=int, default=32, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--workers", type=int, default=2)
    words = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in PRELOADED:
        importlib.import_module(name)
    rooms = words.room or list(ROOMS)
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(words.workers, forked) as pool:
        found = list(pool.map(try_room, rooms, [words.count] * len(rooms), [words.seed] * len(rooms)))
    print("\n| room | mutants | equivalent | noticed | not noticed | share |\n| --- | --: | --: | --: | --: | --: |")
    for room, results in zip(rooms, found, strict=True):
        print(_row(room, results))
    print(_row("all", [each for results in found for each in results]))


if __name__ == "__main__":
    main()
