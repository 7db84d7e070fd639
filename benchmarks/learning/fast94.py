"""Whether experiments/fast94.yaml comes to 94% on average, and its time against the report's 30 epochs, on CIFAR-10.

    CIFAR_MLFLOW_DATA=... python benchmarks/learning/fast94.py [SEEDS [RESULTS.jsonl]]

Each seed (4 by default, from 0 on) begins with the report's loop (report_loop.py), of which an epoch is measured, and
30 of them are the reference. Then `cifar-mlflow train` runs the preset on all 50,000 images, without a look at the
test images, and `cifar-mlflow evaluate --views 6` looks at them, once. The time of a command is that of all of it:
imports, tracking to a sqlite store and the export of the model count too.

The mean accuracy is printed with its 95% interval (Student's t). A seed takes ten to twenty minutes on two cores. Each
is added to RESULTS.jsonl, if it is given, when it ends, and what stands there is not done again: the same command goes
on. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from mlflow import MlflowClient
from scipy import stats
from training import check_data, measured, run, spread

from cifar_mlflow.learning import hardware

ROOT = Path(__file__).resolve().parents[2]
REPORTS_EPOCHS = 30
WANTED, MOST_TIME = 94.0, 0.6


def of_seed(seed: int) -> dict[str, float]:
    """Seconds of an epoch of the report, of training and of evaluating, and the accuracy in per cent."""
    epoch, _, _ = measured("report")
    with tempfile.TemporaryDirectory() as directory:
        uri = f"sqlite:///{directory}/mlflow.db"
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "CIFAR_MLFLOW_STATE": f"{directory}/state"}
        command = [sys.executable, "-m", "cifar_mlflow"]
        preset = ["--config", str(ROOT / "experiments" / "fast94.yaml"), "--seed", str(seed)]
        begun = time.perf_counter()
        run([*command, "train", *preset, "--experiment", "benchmark"], environment, directory)
        trained = time.perf_counter()
        client = MlflowClient(uri)
        (experiment,) = client.search_experiments(filter_string="name = 'benchmark'")
        (recorded,) = client.search_runs([experiment.experiment_id])
        before = time.perf_counter()
        evaluate = [*command, "evaluate", recorded.info.run_id, "--views", "6", "--format", "json"]
        output = subprocess.run(evaluate, cwd=directory, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        evaluated = time.perf_counter()
    accuracy = json.loads(output.stdout)["test_6_views_accuracy"]
    return {"epoch": epoch, "train": trained - begun, "evaluate": evaluated - before, "accuracy": accuracy}


def main() -> None:
    check_data()
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    results = Path(sys.argv[2] if len(sys.argv) > 2 else os.devnull)
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {line.pop("seed"): line for line in lines}
    for seed in range(seeds):
        if seed not in done:
            done[seed] = of_seed(seed)
            with results.open("a") as file:
                file.write(json.dumps({"seed": seed, **done[seed]}) + "\n")
        one = done[seed]
        print(
            f"seed {seed}: {one['accuracy']:.2f}%; training {one['train']:.0f} s, evaluation {one['evaluate']:.0f} s, "
            f"the report's 30 epochs {REPORTS_EPOCHS * one['epoch']:.0f} s ({one['epoch']:.1f} s each)",
            flush=True,
        )
    chosen = [done[seed] for seed in range(seeds)]
    accuracies = [one["accuracy"] for one in chosen]
    whole = [REPORTS_EPOCHS * one["epoch"] for one in chosen]
    training = [one["train"] / theirs for one, theirs in zip(chosen, whole, strict=True)]
    both = [(one["train"] + one["evaluate"]) / theirs for one, theirs in zip(chosen, whole, strict=True)]
    interval = ""
    if seeds > 1:
        low, high = stats.ttest_1samp(accuracies, 0).confidence_interval()
        interval = f"95% interval {low:.2f} to {high:.2f}; "
    print(
        f"fast94: n = {seeds}, test accuracy {sum(accuracies) / seeds:.2f}% ({interval}{WANTED} wanted); of the time "
        f"of the report's 30 epochs, training took {spread(training)} (at most {MOST_TIME} wanted), with the "
        f"evaluation {spread(both)}; {hardware.describe(torch.device('cpu'))}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
