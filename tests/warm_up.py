"""What a process does once, before its first training: done when this is imported, for all that are forked afterwards.

That is a second of a processor for each of them. Nothing here starts a thread.
"""

import gc
import tempfile
from pathlib import Path

import numpy as np
from mlflow.utils.requirements_utils import _init_packages_to_modules_map
from support import TINY_CLASSES, exported_once, tiny_arrays

from cifar_mlflow.analysis import plots
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.jobs.training.record import EXAMPLE_IMAGES
from cifar_mlflow.learning import export
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training
from cifar_mlflow.tracking.writing.model_files import ExportedModel, save


def export_tiny_networks() -> None:
    """As `train` does at its end, of the networks that most tests train."""
    with tempfile.TemporaryDirectory() as directory, exported_once(), export.quiet():
        path = Path(directory) / "tiny.npz"
        np.savez(path, **tiny_arrays())
        for dropout in (0.0, 0.2):
            config = resolve({"dataset": str(path), "dropout": dropout})
            dataset = datasets.load(config)
            training = Training(config, dataset)
            network = export.classifier(training.preprocessing, training.network, training.network.state_dict())
            example = dataset.test.first(EXAMPLE_IMAGES).pixels.numpy()
            answers = np.zeros((EXAMPLE_IMAGES, TINY_CLASSES), np.float32)
            model = ExportedModel(network, "n", "last", 1, example, answers, "abc", export.requirements())
            save(model, Path(directory) / str(dropout))


_init_packages_to_modules_map()  # which MLflow does at its first model, from all installed packages
names = ("train_accuracy", "train_loss", "held_out_accuracy", "held_out_loss", "lr")
plots.curves(dict.fromkeys(names, (0.5, 1.0)), "validation", "")
plots.confusion_matrix(np.eye(TINY_CLASSES, dtype=int), "abc", "")
export_tiny_networks()
gc.collect()
gc.freeze()  # a collection would touch, and so copy, all the memory that the processes share
