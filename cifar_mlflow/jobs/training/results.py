"""What a run keeps of its results as files: figures, and the answer to each image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cifar_mlflow.analysis import classification, plots
from cifar_mlflow.config.training import TORCHVISION, TrainingConfig

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.export import Classifier
    from cifar_mlflow.learning.training import EpochResult

FOLD_PREDICTIONS = "fold_predictions.npz"
MOST_CURVES = 20  # classes; more could not be told apart


def held_out_name(config: TrainingConfig) -> str:
    """The split whose accuracy is taken after each epoch."""
    return "test" if config.trains_on_all else "validation"


def model_name(config: TrainingConfig, weights: str) -> str:
    """What a run's model with these weights is called."""
    activation = "" if config.network.startswith(TORCHVISION) else f"-{config.activation}"
    return f"{config.network.rpartition(':')[2]}{activation}-{weights}"


def prediction_files(run_name: str, dataset: Dataset, probabilities: np.ndarray) -> dict[str, bytes]:
    """What the last-epoch model answers to each validation image, and the confusion matrix of it."""
    labels = dataset.validation.labels.numpy()
    score = classification.score(labels, probabilities)
    title = f"{run_name}: validation, {score.accuracy:.2f}% of {score.images:,} images"
    return {
        "val_predictions.npz": answers(dataset.validation_indices, labels, probabilities),
        "confusion_matrix.png": plots.confusion_matrix(score.confusion, dataset.classes, title),
    }


def fold_files(dataset: Dataset, network: Classifier) -> dict[str, bytes]:
    """What the last-epoch model answers to the fold of the training images that it has not seen, if there is one."""
    from cifar_mlflow.learning import evaluation

    if dataset.left_out is None or dataset.left_out_indices is None:
        return {}
    labels, probabilities = dataset.left_out.labels.numpy(), evaluation.predict(network, dataset.left_out)
    return {FOLD_PREDICTIONS: answers(dataset.left_out_indices, labels, probabilities)}


def answers(indices: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> bytes:
    """An .npz file of what a model answers to images: their positions in the training set, their labels and more."""
    buffer = io.BytesIO()
    predicted = probabilities.argmax(1)
    np.savez_compressed(buffer, index=indices, label=labels, predicted=predicted, probabilities=probabilities)
    return buffer.getvalue()


def curve_files(
    run_name: str, config: TrainingConfig, classes: Sequence[str], epochs: Sequence[EpochResult]
) -> dict[str, bytes]:
    """The curves of all `epochs`, and those of each class if they are few and there is more than a point of each."""
    names = ("train_accuracy", "train_loss", "held_out_accuracy", "held_out_loss")
    values = {name: [getattr(result, name) for result in epochs] for name in names}
    values["lr"] = [result.learning_rate for result in epochs]
    files = {"curves.png": plots.curves(values, held_out_name(config), run_name)}
    scored = {result.epoch: result.held_out_recalls for result in epochs if result.held_out_recalls}
    if len(scored) > 1 and len(classes) <= MOST_CURVES:
        title = f"{run_name}: {held_out_name(config)} recall of each class"
        files["class_curves.png"] = plots.class_curves(list(scored), np.array(list(scored.values())), classes, title)
    return files
