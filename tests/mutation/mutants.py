"""Small faults put into the package by a machine, one at a time: how many of them do the tests of the room notice?

A seeded sample of the mutants that cosmic-ray's operators make, the same number for each room of ROOMS, spread over its
places. Each is written into a copy of the repository and tried by the room's tests that reach its line, the quickest
first, in a process forked from one that has imported torch and MLflow. What cannot be noticed stands, with the reason,
in equivalent_mutants.yaml. `make mutants`, or `make mutants ARGS="--room tuning --seed 1"`.
"""

import argparse
import ast
import importlib
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider
from mlflow.store.db import utils as database
from mutant_trials import ROOT, Copy, TestsFail

# Each room's files, and the tests that belong to them, by patterns under cifar_mlflow/ and tests/.
ROOMS = {
    "config": (["config/*.py"], ["config"]),
    "analysis": (["analysis/*.py"], ["analysis/test_*.py"]),
    "analysis/comparison": (["analysis/comparison/*.py"], ["analysis/comparison"]),
    "tracking": (["tracking/*.py"], ["tracking/test_*.py"]),
    "tracking/outbox": (["tracking/outbox/*.py"], ["tracking/outbox"]),
    "tracking/reading": (["tracking/reading/*.py"], ["tracking/reading"]),
    "tracking/registry": (["tracking/registry/*.py"], ["tracking/registry"]),
    "tracking/writing": (["tracking/writing/*.py"], ["tracking/writing"]),
    "tuning": (["tuning/*.py"], ["tuning"]),
    "jobs/sweeping": (["jobs/sweeping/*.py"], ["jobs/sweeping"]),
    "jobs/promotion": (["jobs/promotion/*.py"], ["jobs/promotion"]),
    "learning/data": (["learning/data/*.py"], ["learning/data"]),
    "checkpoint files": (
        ["learning/checkpoint_files.py"],
        ["learning/test_checkpoint_files*.py", "learning/test_resuming.py"],
    ),
}
# What runs, in part, in processes of its own, where no line is seen: all tests of the room are run.
OUT_OF_SIGHT = ("tuning/process_executor.py", "jobs/sweeping/trial.py", "tracking/registry/smoke_process.py")
LONGEST = 120.0  # seconds of tests for one mutant
# Without tests of processes that are killed, and of servers: they take minutes.
QUICK = "not interrupted and not test_worker.py and not test_sweep.py and not test_sweep_broken_off.py"
EQUIVALENTS = Path(__file__).with_name("equivalent_mutants.yaml")
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
        for name, found_at in positions(path.read_text()).items():
            for occurrence, position in enumerate(found_at):
                places[path, position].append((name, occurrence))
    chance, found = random.Random(f"{seed} {room}"), []
    order = list(places)
    chance.shuffle(order)
    for path, position in order:
        mutant = _mutant(room, path, position[0], *chance.choice(places[path, position]))
        found += [mutant] if mutant else []
        if len(found) == count:
            break
    return found


def positions(source: str) -> dict[str, list[tuple[int, int]]]:
    """Where each operator acts, in the order of its occurrences."""
    names = [name for name in OperatorProvider() if not any(word in name for word in UNLIKELY)]
    operators = [OperatorProvider()[name]() for name in names]
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    for node in ast_nodes(get_ast(source)):
        for operator, places in zip(operators, found.values(), strict=True):
            places += [start for start, _ in operator.mutation_positions(node)]
    return found


def _mutant(room: str, path: Path, line: int, operator: str, occurrence: int) -> Mutant | None:
    source = path.read_text()
    try:
        changed = mutate_code(source, OperatorProvider()[operator](), occurrence)
        if changed is None or meaning(changed) == meaning(source):
            return None
    except (SyntaxError, AttributeError):  # the second is cosmic-ray's, of `except (module.Error, Other)`
        return None
    changed = changed.replace("CosmicRayTestingException", "ZeroDivisionError")
    lines = zip(source.splitlines(), changed.splitlines(), strict=False)
    was, becomes = next(pair for pair in lines if pair[0] != pair[1])
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


def selected(mutant: Mutant, seconds: dict[str, float], lines: dict[str, dict[int, set[str]]]) -> list[str]:
    """The tests that reach the mutant's line, the quickest first, as many as take no more than `LONGEST` together."""
    reached = lines.get(mutant.module, {})
    # A statement of several lines is known by its first.
    start = max((line for line in reached if line <= mutant.line), default=0)
    tests = reached.get(start, set())
    if not tests and mutant.module.endswith(OUT_OF_SIGHT):
        tests = set(seconds)
    ordered = sorted(tests, key=seconds.__getitem__)
    together = itertools.accumulate(seconds[name] for name in ordered)
    return [name for name, taken in zip(ordered, together, strict=True) if taken <= LONGEST]


def try_room(room: str, count: int, seed: int) -> list[tuple[Mutant, str]]:
    """What came of each mutant of the room's sample: noticed, survived, timed out, equivalent or no test."""
    listed = yaml.safe_load(EQUIVALENTS.read_text())
    equivalent = {(entry["module"], entry["was"], entry.get("becomes")) for entry in listed}
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copy = Copy(Path(directory))
        try:
            seconds, lines = copy.baseline(ROOMS[room][1], QUICK)
        except TestsFail as fault:
            print(fault, flush=True)
            return []
        for mutant in mutants_of(room, count, seed):
            names = selected(mutant, seconds, lines)
            places = itertools.product((mutant.module, "*"), (mutant.was,), (mutant.becomes, None))
            if equivalent.intersection(places):
                result = "equivalent"
            elif not names:
                result = "no test"
            else:
                limit = 20 + 5 * sum(seconds[name] for name in names)
                result = copy.try_out(mutant.module, mutant.source, names, limit)
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
    sys.path.insert(0, str(ROOT / "tests"))
    from support import empty_tables  # the tests' own helpers

    for name in PRELOADED:
        importlib.import_module(name)
    empty_tables()
    # MLflow reads all its migrations for each store that is opened.
    database._get_latest_schema_revision = cache(database._get_latest_schema_revision)
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
