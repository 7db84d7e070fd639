"""What weights to start from are worth: resnet18 on 500 images of five kinds of clothes, started from five other kinds.

    python experiments/pretrained_weights.py [SEEDS]

Fashion-MNIST's classes 0 to 4 train torchvision's resnet18, whose weights are written to a file. Classes 5 to 9, 500
images of them, are then trained from that file, from none, and with the backbone frozen, with the same seeds;
`compare` says which are better. What a frozen backbone has learned must be what was in the file, to the last bit.
All is written to the directory `pretrained_weights`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mlflow
import numpy as np
import torch
from safetensors.torch import save_file

import cifar_mlflow as cm
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.data import datasets

BASE = {
    "network": "torchvision:resnet18", "optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.02, "batch_size": 50,
    "scheduler": "cosine", "augmentation": "flip", "epoch_evaluation": False,
}  # fmt: skip
TRAINED_FIRST, TRAINED_NEXT, VALIDATED = 3000, 500, 1000


def write(path: Path, classes: range, images: int) -> None:
    """So many training images, in turn of each class, and all test images of the classes."""
    whole = datasets.load(resolve({"dataset": "fashion_mnist", "validation_size": 0}))
    labels = whole.train.labels.numpy()
    of_each = [np.flatnonzero(labels == label)[: images // len(classes)] for label in classes]
    chosen, tested = np.sort(np.concatenate(of_each)), np.isin(whole.test.labels.numpy(), classes)
    np.savez(
        path,
        x_train=whole.train.pixels.numpy()[chosen],
        y_train=labels[chosen] - classes.start,
        x_test=whole.test.pixels.numpy()[tested],
        y_test=whole.test.labels.numpy()[tested] - classes.start,
        classes=np.array(whole.classes)[classes.start : classes.stop],
    )


def network_of(run_id: str) -> dict[str, torch.Tensor]:
    """The weights of the run's last-epoch model, by their names in the network."""
    state = mlflow.pytorch.load_model(cm.load(run_id).uri).state_dict()
    names = {name: name.removeprefix("network.") for name in state if name.startswith("network.")}
    return {short: state[name].detach().clone() for name, short in names.items()}


def main(seeds: int) -> None:
    work = Path("pretrained_weights")
    work.mkdir(exist_ok=True)
    os.chdir(work)
    write(Path("first.npz"), range(5), TRAINED_FIRST)
    write(Path("next.npz"), range(5, 10), TRAINED_NEXT + VALIDATED)
    first = cm.train({**BASE, "dataset": "first.npz", "epochs": 2})
    print(f"classes 0 to 4: {first.final_accuracy:.2f}% of the validation images")
    save_file(network_of(first.id), "first.safetensors")
    base = {**BASE, "dataset": "next.npz", "validation_size": VALIDATED, "epochs": 3}
    spec = {
        "name": "weights",
        "base": base,
        "space": {"pretrained": ["none", "first.safetensors"]},
        "repeats": seeds,
        "workers": 1,
        "log_models": False,
    }
    print(cm.sweep(spec).comparison)
    frozen = cm.train({**base, "pretrained": "first.safetensors", "freeze": "backbone"})
    before, after = network_of(first.id), network_of(frozen.id)
    changed = sorted(name for name in before if not before[name].equal(after[name]))
    statistics = [name for name in before if "running" in name]
    print(f"frozen: {frozen.final_accuracy:.2f}%; changed of {len(before)} tensors: {', '.join(changed)}")
    print(f"batch normalization: {len(statistics)} statistics, {len(set(statistics) & set(changed))} of them changed")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
