"""Successive halving against the whole grid of 60 configurations: how many epochs it takes, and how good its winner is.

    python benchmarks/sweeps/halving.py [ROUNDS [DIRECTORY]]

Each round has a seed of its own and runs experiments/halving.yaml twice as a sweep, without its pruner and as it is, in
a fresh store. The epochs are counted in the store: the points of val_accuracy of all runs, those that were pruned
included. Each side's winner, by final_val_accuracy after one run, is then trained again with six seeds that no run of
the sweeps had, and `cifar-mlflow compare` says whether the two can be told apart (Welch's t-test at 5%). Winners that
are one configuration are equal, and not trained again. With a DIRECTORY its stores are kept there, and a benchmark that
was broken off goes on, as its sweeps do. A round takes 12 minutes or more on two cores.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parents[2]
SPEC = yaml.safe_load((ROOT / "experiments" / "halving.yaml").read_text())
# Without its pruner, and what belongs to that.
GRID = {name: value for name, value in SPEC.items() if name not in ("pruner", "min_epochs")}
FRESH_SEED, REPEATS = 1000, 6
MOST_EPOCHS = 0.25  # of the grid's


class Place:
    """A directory with a store of its own, in which sweeps are run."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        uri = f"sqlite:///{directory}/mlflow.db"
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "MLFLOW_TRACKING_URI": uri,
            "CIFAR_MLFLOW_STATE": f"{directory}/state",
        }
        self._uri = uri

    def command(self, *words: str) -> str:
        """What `cifar-mlflow WORDS` prints."""
        command = [sys.executable, "-m", "cifar_mlflow", *words]
        environment = self._environment
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout

    def sweep(self, spec: dict[str, Any]) -> float:
        """Runs the sweep; returns the seconds that it took."""
        path = self._directory / f"{spec['name']}.yaml"
        path.write_text(yaml.safe_dump(spec))
        begun = time.perf_counter()
        self.command("sweep", str(path))
        return time.perf_counter() - begun

    def result(self, name: str) -> tuple[dict[str, str], int]:
        """What varies in the sweep's winner, and the epochs that were trained in all its runs."""
        client = MlflowClient(self._uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        (parent,) = client.search_runs(experiments, f"tags.sweep = '{name}' and tags.kind = 'sweep'")
        runs = client.search_runs(experiments, f"tags.sweep = '{name}' and tags.kind = 'trial'", max_results=1000)
        # A run that was broken off has been done again.
        whole = [run for run in runs if run.info.status == "FINISHED" or run.data.tags.get("pruned") == "true"]
        epochs = sum(len(client.get_metric_history(run.info.run_id, "val_accuracy")) for run in whole)
        winner = client.get_run(parent.data.tags["winner_run"])
        return {name: winner.data.params[name] for name in SPEC["space"]}, epochs


def one_round(seed: int, directory: Path) -> tuple[float, bool]:
    """The share of the grid's epochs that halving trained, and whether the winners cannot be told apart."""
    base = {**SPEC["base"], "seed": seed}
    place = Place(directory)
    winners, epochs, told = {}, {}, []
    for name, spec in (("grid", GRID), ("halving", SPEC)):
        seconds = place.sweep({**spec, "name": name, "base": base})
        winners[name], epochs[name] = place.result(name)
        told.append(f"{name}: {epochs[name]} epochs, {seconds:.0f} s, winner {' '.join(winners[name].values())}")
    share = epochs["halving"] / epochs["grid"]
    print(f"seed {seed}: {'; '.join(told)}; share of the epochs {share:.3f}", flush=True)
    if winners["grid"] == winners["halving"]:
        print("  the winners are one configuration", flush=True)
        return share, True
    for name, winner in winners.items():
        again = {**base, **winner, "seed": FRESH_SEED}
        space = {"activation": [winner["activation"]]}
        place.sweep({**GRID, "name": f"{name}-again", "base": again, "space": space, "repeats": REPEATS})
    compared = json.loads(place.command("compare", "grid-again", "halving-again", "--format", "json"))
    for row in compared["configurations"]:
        values = " ".join(str(row["parameters"][name]) for name in SPEC["space"])
        interval = f"{row['mean']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        print(f"  {values}: {interval} with {row['n']} fresh seeds, {row['verdict']}", flush=True)
    return share, all(row["verdict"] != "worse" for row in compared["configurations"])


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(sys.argv[2] if len(sys.argv) > 2 else temporary).absolute()
        results = [one_round(seed, directory / f"seed{seed}") for seed in range(rounds)]
    shares = [share for share, _ in results]
    equal = sum(same for _, same in results)
    spread = f"median {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
    print(f"share of the epochs: {spread}, at most {MOST_EPOCHS} wanted")
    print(f"winners that cannot be told apart: {equal} of {rounds}")
    import torch

    from cifar_mlflow.learning import hardware

    where = hardware.describe(torch.device("cpu"))
    print(
        f"n={rounds}: share of the grid's epochs {spread}, winners not distinguishable in {equal} of {rounds}; "
        f"{where}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
