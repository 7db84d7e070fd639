"""An epoch of the report's own loop, and of Lightning, against an epoch of `cifar-mlflow train`, on CIFAR-10.

    CIFAR_MLFLOW_DATA=... python benchmarks/learning/training.py [ROUNDS [SIDE ...]]

The sides, all with the report's network, batches of 32 and Adam on the same 50,000 images:
    report     the report's loop, written plainly (report_loop.py): a DataLoader with two workers, float32
    lightning  the same in Lightning with its MLFlowLogger and a sqlite store (lightning_loop.py); left out if it
               is not there: `pip install lightning` adds it, which the package itself does not need
    float32    `cifar-mlflow train --precision float32`, recorded in a sqlite store
    auto       the same with --precision auto, the default: bfloat16 where the processor has it

Each runs two epochs in a process of its own, in turn, with all cores. The second epoch counts, with the evaluation of
the 10,000 test images: for `train`, from one epoch's entry in the store to the next one's, so that checkpoints and
tracking count too. The peak memory of `train` is that of the whole command, with reading the data, exporting the model
and recording it. A round takes 4 to 7 minutes on two cores. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from mlflow import MlflowClient

from cifar_mlflow.learning import hardware

EPOCHS = 2
REFERENCES, OURS = ("report", "lightning"), ("float32", "auto")


def epochs_of_train(precision: str, epochs: int, seed: int = 0) -> tuple[list[float], list[float], float]:
    """Seconds from the end of each epoch to the next one's, test accuracies of all epochs, peak memory in GB."""
    with tempfile.TemporaryDirectory() as directory:
        uri = f"sqlite:///{directory}/mlflow.db"
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "CIFAR_MLFLOW_STATE": f"{directory}/state"}
        options = ["--epochs", epochs, "--seed", seed, "--precision", precision, "--scheduler", "none"]
        options += ["--validation-size", 0, "--experiment", "benchmark"]
        command = [sys.executable, "-m", "cifar_mlflow", "train", *map(str, options)]
        peak = run(command, environment, directory)
        client = MlflowClient(uri)
        (experiment,) = client.search_experiments(filter_string="name = 'benchmark'")
        (recorded,) = client.search_runs([experiment.experiment_id])
        points = client.get_metric_history(recorded.info.run_id, "epoch_test_accuracy")
    points.sort(key=lambda point: point.step)
    seconds = [(after.timestamp - before.timestamp) / 1000 for before, after in itertools.pairwise(points)]
    return seconds, [point.value for point in points], peak


def check_data() -> None:
    """Ends the script unless $CIFAR_MLFLOW_DATA names what torchvision reads too, from any directory."""
    directory = Path(os.environ.get("CIFAR_MLFLOW_DATA", ""))
    if not directory.is_absolute() or not (directory / "cifar-10-batches-py").is_dir():
        sys.exit("CIFAR_MLFLOW_DATA must be the absolute path of the directory that holds cifar-10-batches-py")


def run(command: list[str], environment: dict[str, str], directory: str) -> float:
    """Runs a command in `directory`, which shows only if it fails. Returns its peak memory in GB."""
    with open(Path(directory) / "output", "w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{output.read()}")
    return usage.ru_maxrss * 1024 / 1e9


def measured(side: str) -> tuple[float, float, float]:
    """Seconds and test accuracy of a side's last epoch, peak memory in GB (of a reference without its workers)."""
    if side in OURS:
        seconds, accuracies, peak = epochs_of_train(side, EPOCHS)
        return seconds[-1], accuracies[-1], peak
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "epochs.json"
        peak = run([sys.executable, __file__, "--reference", side, str(result)], dict(os.environ), directory)
        seconds_of_last, accuracy = json.loads(result.read_text())[-1]
    return seconds_of_last, accuracy, peak


def reference(side: str, result: Path) -> None:
    """Trains one of the references in this process."""
    if side == "report":
        import report_loop

        epochs = list(report_loop.train(EPOCHS))
    else:
        import lightning_loop

        epochs = list(lightning_loop.train(EPOCHS, result.parent))
    result.write_text(json.dumps(epochs))


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    sides = sys.argv[2:] or [*REFERENCES, *OURS]
    if unknown := set(sides) - {*REFERENCES, *OURS}:
        sys.exit(f"no such side: {', '.join(sorted(unknown))}; there are {', '.join([*REFERENCES, *OURS])}")
    check_data()
    if "lightning" in sides and importlib.util.find_spec("lightning") is None:
        print("Lightning is not installed, so that it is left out: `pip install lightning` adds it")
        sides.remove("lightning")
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    peaks: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        for side in sides:
            taken, accuracy, peak = measured(side)
            seconds[side].append(taken)
            peaks[side].append(peak)
            print(f"round {number}: {side} {taken:.1f} s, {accuracy:.1f}% correct, {peak:.2f} GB", flush=True)
    print()
    for side in sides:
        print(f"{side}: {spread(seconds[side], 1)} s an epoch, peak memory {max(peaks[side]):.2f} GB")
    ratios = []
    for theirs in [side for side in sides if side in REFERENCES]:
        for mine in [side for side in sides if side in OURS]:
            values = [slow / fast for slow, fast in zip(seconds[theirs], seconds[mine], strict=True)]
            ratios.append(f"{theirs} / {mine} {spread(values)}")
            print(f"{mine}: {spread(values)} times as fast as {theirs}")
    memory = max((max(peaks[side]) for side in sides if side in OURS), default=0.0)
    machine = hardware.describe(torch.device("cpu"))
    print(
        f"training: n = {rounds}, seconds of an epoch: {', '.join(ratios)}; peak memory of `train` {memory:.2f} GB; "
        f"{machine}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--reference"]:
        reference(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
