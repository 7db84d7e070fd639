"""What a process does once, before its first training: done when this is imported, for all that are forked afterwards.

That is a second of a processor for each of them. Nothing here starts a thread.
"""

import gc
import tempfile
from pathlib import Path

import numpy as np
from mlflow.store.db import utils
from mlflow.utils.requirements_utils import _init_packages_to_modules_map
from once import drawn_once, exported_once
from support import TINY_CLASSES, look_at_migrations_once, tiny_arrays

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


def draw_tiny_figures() -> None:
    """Those of most tests, which are drawn no more from now on."""
    name = "tiny-prelu-adam-seed0"
    plots.confusion_matrix(np.eye(TINY_CLASSES, dtype=int), "012", f"{name}: validation, 100.00% of 30 images")
    for epochs in range(1, 6):
        history = dict.fromkeys(("train_accuracy", "train_loss", "held_out_accuracy", "held_out_loss"), [0.5] * epochs)
        plots.curves({**history, "lr": [0.1] * epochs}, "validation", name)


look_at_migrations_once()
utils._get_latest_schema_revision()
_init_packages_to_modules_map()  # which MLflow does at its first model, from all installed packages
drawn = drawn_once()
drawn.__enter__()  # for good
draw_tiny_figures()
export_tiny_networks()
gc.collect()
gc.freeze()  # a collection would touch, and so copy, all the memory that the processes share
