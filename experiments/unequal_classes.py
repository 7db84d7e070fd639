"""What balanced weights of the classes are worth: digits, of which one is ten times rarer than the others.

    python experiments/unequal_classes.py [SEEDS]

Of the eights, every tenth training image is kept. Runs with and without --class-weights balanced have the same seeds;
`compare` says by balanced accuracy of the validation images which is better, and each run is evaluated on the test
images, which are as many of each digit. All is written to the directory `unequal_classes`.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np

import cifar_mlflow as cm
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.data import datasets

RARE = 8


def write(path: Path) -> None:
    whole = datasets.load(resolve({"dataset": "digits", "validation_size": 0}))
    labels = whole.train.labels.numpy()
    rare = np.flatnonzero(labels == RARE)
    chosen = np.setdiff1d(np.arange(len(labels)), np.setdiff1d(rare, rare[::10]))
    np.savez(
        path,
        x_train=whole.train.pixels.numpy()[chosen],
        y_train=labels[chosen],
        x_test=whole.test.pixels.numpy(),
        y_test=whole.test.labels.numpy(),
        classes=np.array(whole.classes),
    )


def main(seeds: int) -> None:
    work = Path("unequal_classes")
    work.mkdir(exist_ok=True)
    os.chdir(work)
    write(Path("digits8.npz"))
    spec = {
        "name": "unequal",
        "base": {"dataset": "digits8.npz", "epochs": 4, "scheduler": "cosine", "validation_size": 300},
        "space": {"class_weights": ["none", "balanced"]},
        "repeats": seeds,
        "workers": 1,
        "objective": "final_val_balanced_accuracy",
    }
    done = cm.sweep(spec)
    print(done.comparison)
    for _, row in done.table.iterrows():
        with warnings.catch_warnings(action="ignore"):  # each time, that the classes are unequal
            found = [cm.evaluate(run_id) for run_id in row["run_ids"].split()]
        recalls = np.array([each.score.recall[RARE] for each in found])
        balanced = np.array([each.balanced_accuracy for each in found])
        accuracy = np.array([each.score.accuracy for each in found])
        told = ", ".join(
            f"{name} {values.mean():.2f} (standard deviation {values.std(ddof=1):.2f})"
            for name, values in (("recall of the eights", recalls), ("balanced", balanced), ("accuracy", accuracy))
        )
        print(f"--class-weights {row['parameter:class_weights']}: test images, n={len(found)}: {told}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
