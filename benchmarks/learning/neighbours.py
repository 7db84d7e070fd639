"""Two trainings on one machine: with `--wait`, and at once, against one after the other.

    python benchmarks/learning/neighbours.py [ROUNDS]

Each round trains the report's network on digits for EPOCHS epochs, twice on each side, with all cores (`--threads
auto`), each side in a store and a state directory of its own. Seconds are wall-clock, from the start of the first
process to the end of the last. Two with `--wait` shall take at most 1.05 of one after the other: the second imports and
reads its data while it waits. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 30
MOST = 1.05
ALONE, WAITING, AT_ONCE = "one after the other", "with --wait", "at once"
COMMAND = (
    *(sys.executable, "-m", "cifar_mlflow", "train", "--dataset", "digits", "--scheduler", "none"),
    *("--epochs", str(EPOCHS)),
)


def seconds(side: str) -> float:
    """How long two trainings take."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
            "CIFAR_MLFLOW_STATE": f"{directory}/state",
        }
        # The store is made before.
        subprocess.run([*COMMAND[:3], "check"], env=environment, check=True, capture_output=True)
        command = [*COMMAND, *(["--wait"] if side == WAITING else [])]
        begun = time.perf_counter()
        started = []
        for seed in ("0", "1"):
            process = subprocess.Popen(
                [*command, "--seed", seed], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if side == ALONE:
                process.wait()
            started.append(process)
        assert [process.wait() for process in started] == [0, 0], "a training failed"
        return time.perf_counter() - begun


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    ratios: dict[str, list[float]] = {WAITING: [], AT_ONCE: []}
    for number in range(1, rounds + 1):
        times = {side: seconds(side) for side in (ALONE, WAITING, AT_ONCE)}
        for side, found in ratios.items():
            found.append(times[side] / times[ALONE])
        print(f"round {number}: {', '.join(f'{side} {took:.1f} s' for side, took in times.items())}", flush=True)
    told = [
        f"{side} {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        for side, found in ratios.items()
    ]
    import torch

    from cifar_mlflow.learning import hardware

    print(
        f"neighbours: n = {rounds}, of {ALONE}: {told[0]} (at most {MOST} wanted), {told[1]}; "
        f"{hardware.describe(torch.device('cpu'))}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
