"""`compare` in stores of 100, 1,000 and 10,000 runs, against what a user would write, and against `import mlflow`.

    python benchmarks/tracking/compare.py [ROUNDS]

A real sweep of one run (30 epochs on digits) is trained first; its rows are then copied, with other ids, seeds, rates
and values, straight into the database: sweeps of 50 runs (10 learning rates, 5 seeds each), in one experiment. Each
round runs, for one sweep of 50 runs in each store, and for all runs of the store of 1,000, in turn and each as a
process of its own: `python -c "import mlflow"`, `cifar-mlflow compare`, the same with `--format html` (which also reads
the values by epoch), and the reference: `mlflow.search_runs`, a `get_metric_history` a run, and a groupby. Seconds are
wall-clock from start to end of the process, memory is its peak. It takes one minute to fill the stores, one a round,
and 1 GB of disk for temporary files. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.training import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
SIZES = (100, 1_000, 10_000)
ALL_RUNS_OF = 1_000
CONFIGURATIONS, SEEDS = 10, 5  # of a sweep
EXPERIMENT = "filled"
IMPORT = "import mlflow"
SIDES = ("compare", "compare --format html", "reference")
SPEC = """\
name: template
experiment: template
base: {dataset: digits, epochs: 30, scheduler: none}
space: {activation: [prelu]}
repeats: 1
"""
# The tables of a run's rows, and of its logged models', with the columns that are ids of their own.
TABLES = (
    *("runs", "params", "tags", "metrics", "latest_metrics", "inputs", "input_tags"),
    *("logged_models", "logged_model_metrics", "logged_model_tags"),
)
REFERENCE = """\
import sys
import mlflow
client = mlflow.MlflowClient()
table = mlflow.search_runs(experiment_names=[sys.argv[1]], filter_string="tags.kind = 'trial'" + sys.argv[2])
for run_id in table["run_id"]:
    assert len(client.get_metric_history(run_id, "val_accuracy")) == 30
groups = table.groupby("params.learning_rate")["metrics.final_val_accuracy"]
print(groups.agg(["mean", "std", "count"]).sort_values("mean", ascending=False).to_string())
"""


@dataclass(frozen=True)
class Cost:
    """What a process took: wall-clock seconds, and peak memory in MB."""

    seconds: float
    memory: float


def environment(store: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}",
        "CIFAR_MLFLOW_STATE": str(store.parent / "state"),
    }


def cost(words: list[str], store: Path, lines: int) -> Cost:
    """Runs `python WORDS`, which must print at least so many lines."""
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words], env=environment(store), stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode()
    if process.returncode or text.count("\n") < lines:
        raise SystemExit(f"{words} ended with {process.returncode}:\n{text}")
    return Cost(seconds, usage.ru_maxrss / 1024)


def template(directory: Path) -> Path:
    """The store of a sweep with one run, as the package and MLflow write it."""
    spec, store = directory / "template.yaml", directory / "template.db"
    spec.write_text(SPEC)
    command = [sys.executable, "-m", "cifar_mlflow", "sweep", str(spec)]
    subprocess.run(command, env=environment(store), check=True, capture_output=True)
    return store


def filled(source: Path, store: Path, runs: int) -> Path:
    """A copy of the template's store with `runs` runs more, in sweeps of 50, in an experiment of their own."""
    shutil.copy(source, store)
    with closing(sqlite3.connect(store)) as database:
        database.execute("PRAGMA synchronous = OFF")
        (experiment_id,) = database.execute("SELECT max(experiment_id) + 1 FROM experiments").fetchone()
        database.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace) "
            "SELECT ?, ?, artifact_location, lifecycle_stage, workspace FROM experiments WHERE name = 'template'",
            (experiment_id, EXPERIMENT),
        )
        parent, trial = (Rows(database, kind, experiment_id) for kind in ("sweep", "trial"))
        base = resolve(trial.params)
        rng = random.Random(runs)
        for number in range(runs // (CONFIGURATIONS * SEEDS)):
            name = f"sweep-{number:04d}"
            parent_id = parent.copy(rng, {"sweep": name}, {}, "")
            for position in range(CONFIGURATIONS * SEEDS):
                rate = 0.001 * (1 + position // SEEDS) + 0.000001 * number
                config = base.model_copy(update={"learning_rate": round(rate, 7), "seed": position % SEEDS})
                tags = {"sweep": name, "trial": str(position // SEEDS)}
                trial.copy(rng, tags, config.as_options(), parent_id, config)
            for rows in (parent, trial):
                rows.insert()
        database.commit()
    return store


class Rows:
    """The rows of the template's parent or trial, and the copies made of them."""

    def __init__(self, database: sqlite3.Connection, kind: str, experiment_id: int) -> None:
        self._database, self._experiment_id = database, experiment_id
        (self._run_id,) = database.execute(
            "SELECT run_uuid FROM tags WHERE key = 'kind' AND value = ?", (kind,)
        ).fetchone()
        (self._parent_id,) = database.execute("SELECT value FROM tags WHERE key = 'sweep_id'").fetchone()
        ids = {self._run_id}
        for table, key in (("inputs", "input_uuid"), ("logged_models", "model_id")):
            found = database.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in found.description]
            ids |= {dict(zip(names, row, strict=True))[key] for row in found if self._run_id in row}
        self._ids = sorted(ids)
        self._columns: dict[str, list[str]] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._copies: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
        self._made = 0
        for table in TABLES:
            found = database.execute(f"SELECT * FROM {table}")
            self._columns[table] = [column[0] for column in found.description]
            rows = [dict(zip(self._columns[table], row, strict=True)) for row in found]
            # A tag's value may be the id of another run: the parent's is a tag of the trial.
            self._rows[table] = [
                row for row in rows if any(value in ids for name, value in row.items() if name != "value")
            ]

    @property
    def params(self) -> dict[str, str]:
        return {row["key"]: row["value"] for row in self._rows["params"]}

    def copy(
        self,
        rng: random.Random,
        tags: dict[str, str],
        params: dict[str, str],
        parent_id: str,
        config: TrainingConfig | None = None,
    ) -> str:
        """Makes a copy with other tags and parameters; returns its run id."""
        new = {old: f"m-{uuid.UUID(int=rng.getrandbits(128)).hex}" for old in self._ids if old.startswith("m-")}
        new |= {old: uuid.UUID(int=rng.getrandbits(128)).hex for old in self._ids if old not in new}
        new[self._parent_id] = parent_id or new[self._run_id]
        if config is not None:
            data = next(row["value"] for row in self._rows["tags"] if row["key"] == "dataset_digest")
            tags = tags | {
                "config_fingerprint": config.fingerprint,
                "run_fingerprint": config.run_fingerprint(data),
            }
        self._made += 1
        shift, later = rng.gauss(0, 0.5), self._made * 60_000
        for table in TABLES:
            for row in self._rows[table]:
                changed = {name: new.get(value, value) for name, value in row.items()}
                if "experiment_id" in changed:
                    changed["experiment_id"] = self._experiment_id
                if table in ("params", "tags"):
                    changed["value"] = (params if table == "params" else tags).get(row["key"], changed["value"])
                if table in ("metrics", "latest_metrics") and "accuracy" in row["key"]:
                    changed["value"] = row["value"] + shift
                for name in ("timestamp", "start_time", "end_time"):
                    if changed.get(name):
                        changed[name] += later
                self._copies[table].append(tuple(changed.values()))
        return new[self._run_id]

    def insert(self) -> None:
        """Writes the copies to the database."""
        for table, rows in self._copies.items():
            marks = ", ".join("?" * len(self._columns[table]))
            self._database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            rows.clear()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), rounds)


def measure(directory: Path, rounds: int) -> None:
    source = template(directory)
    stores = {size: filled(source, directory / f"{size}.db", size) for size in SIZES}
    for size, store in stores.items():
        print(f"store of {size:,} runs: {store.stat().st_size / 1e6:.0f} MB", flush=True)
    script = directory / "reference.py"
    script.write_text(REFERENCE)
    one = "sweep-0001"
    cases = [(f"50 of {size:,}", store, one, f" and tags.sweep = '{one}'") for size, store in stores.items()]
    cases.append((f"{ALL_RUNS_OF:,} of {ALL_RUNS_OF:,}", stores[ALL_RUNS_OF], EXPERIMENT, ""))
    costs: dict[str, dict[str, list[Cost]]] = {case: {side: [] for side in (IMPORT, *SIDES)} for case, *_ in cases}
    for number in range(1, rounds + 1):
        for case, store, what, condition in cases:
            compare = ["-m", "cifar_mlflow", "compare", what]
            commands = (["-c", IMPORT], compare, [*compare, "--format", "html"], [str(script), EXPERIMENT, condition])
            for side, words in zip((IMPORT, *SIDES), commands, strict=True):
                costs[case][side].append(cost(words, store, 0 if side == IMPORT else CONFIGURATIONS))
        told = ", ".join(f"{case} {beyond(sides, SIDES[0])[-1]:.2f} s" for case, sides in costs.items())
        print(f"round {number}: compare beyond {IMPORT}: {told}", flush=True)
    print(f"{IMPORT}: {spread([each.seconds for sides in costs.values() for each in sides[IMPORT]], ' s')}")
    for case, sides in costs.items():
        for side in SIDES:
            memory = max(each.memory for each in sides[side])
            print(f"{case} runs, {side}: {spread(beyond(sides, side), ' s')} beyond {IMPORT}, {memory:.0f} MB")
        # Both read the values by epoch, which plain `compare` need not.
        html, reference = SIDES[1:]
        ratios = [mine.seconds / other.seconds for mine, other in zip(sides[html], sides[reference], strict=True)]
        print(f"{case} runs, {html} / reference: {spread(ratios)}")
    print(last_line(rounds, costs))


def beyond(sides: dict[str, list[Cost]], side: str) -> list[float]:
    """The seconds that are left without those of the `import mlflow` before."""
    return [each.seconds - before.seconds for each, before in zip(sides[side], sides[IMPORT], strict=True)]


def spread(values: list[float], unit: str = "") -> str:
    """The median, and the range."""
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


def last_line(rounds: int, costs: dict[str, dict[str, list[Cost]]]) -> str:
    """What docs/explanation/performance.md takes over."""
    import torch

    from cifar_mlflow.learning import hardware

    told = "; ".join(f"{case}: {spread(beyond(sides, SIDES[0]), ' s')}" for case, sides in costs.items())
    memory = max(each.memory for sides in costs.values() for side in SIDES[:-1] for each in sides[side])
    machine = hardware.describe(torch.device("cpu"))
    return f"compare beyond {IMPORT}, n={rounds}: {told}; at most {memory:.0f} MB; {machine}, {datetime.date.today()}"


if __name__ == "__main__":
    main()
