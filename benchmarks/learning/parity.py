"""Whether `cifar-mlflow train` comes to the accuracy of the report's loop on CIFAR-10, over several seeds.

    CIFAR_MLFLOW_DATA=... python benchmarks/learning/parity.py [SEEDS [EPOCHS [RESULTS.jsonl]]]

Each seed (6 by default) trains EPOCHS (5) epochs twice: by the report's loop in float32 (report_loop.py) and by `train`
with --precision auto, on the same 50,000 images with the same settings. The difference of the mean accuracies after
the last epoch is printed with its 95% interval (Welch). A seed takes 4 to 7 minutes on two cores. Each training is
added to RESULTS.jsonl, if it is given, when it ends, and what stands there is not trained again: the same command goes
on.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from scipy import stats
from training import check_data, epochs_of_train, run

from cifar_mlflow.learning import hardware

SIDES = ("report", "auto")


def accuracies(side: str, epochs: int, seed: int) -> list[float]:
    """Test accuracy (per cent) after each epoch of one training, in a process of its own."""
    if side == "auto":
        return epochs_of_train("auto", epochs, seed)[1]
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "epochs.json"
        command = [sys.executable, __file__, "--reference", str(epochs), str(seed), str(result)]
        run(command, dict(os.environ), directory)
        return [accuracy for _, accuracy in json.loads(result.read_text())]


def main() -> None:
    check_data()
    seeds, epochs = (int(sys.argv[place]) if len(sys.argv) > place else default for place, default in ((1, 6), (2, 5)))
    results = Path(sys.argv[3] if len(sys.argv) > 3 else os.devnull)
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(line["side"], line["seed"]): line["accuracies"] for line in lines if line["epochs"] == epochs}
    for seed in range(seeds):
        for side in SIDES:
            if (side, seed) not in done:
                done[side, seed] = accuracies(side, epochs, seed)
                entry = {"side": side, "seed": seed, "epochs": epochs, "accuracies": done[side, seed]}
                with results.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
        print(f"seed {seed}: " + ", ".join(f"{side} {done[side, seed][-1]:.2f}%" for side in SIDES), flush=True)
    report, auto = ([done[side, seed][-1] for seed in range(seeds)] for side in SIDES)
    test = stats.ttest_ind(auto, report, equal_var=False)
    low, high = test.confidence_interval()
    means = [sum(values) / seeds for values in (report, auto)]
    print(
        f"parity: n = {seeds} seeds of {epochs} epochs, test accuracy of the report's loop {means[0]:.2f}%, of `train` "
        f"{means[1]:.2f}%, difference {means[1] - means[0]:+.2f} (95% interval {low:+.2f} to {high:+.2f}); "
        f"{hardware.describe(torch.device('cpu'))}; {datetime.date.today()}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--reference"]:
        import report_loop

        Path(sys.argv[4]).write_text(json.dumps(list(report_loop.train(int(sys.argv[2]), int(sys.argv[3])))))
    else:
        main()
