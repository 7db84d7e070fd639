"""What a training run writes to its record: parameters, metrics, figures, models, and how it ended."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cifar_mlflow.analysis import classification, plots
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.jobs.training.progress import warn
from cifar_mlflow.text import count, redact
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.reading.resumable import Recorded
from cifar_mlflow.tracking.writing import provenance, ui_views
from cifar_mlflow.tracking.writing.model_files import ExportedModel

if TYPE_CHECKING:
    import torch

    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.training import EpochResult, Training

EXAMPLE_IMAGES = 4  # two or more, or the exported model would take that number of images only


class Pruned(Exception):
    """Raised by a listener to end a run early, because others do better; the run is KILLED, with the tag pruned."""


def held_out_name(config: TrainingConfig) -> str:
    """The split whose accuracy is taken after each epoch."""
    return "test" if config.trains_on_all else "validation"


@dataclass
class History:
    """The epochs so far, and the network's weights after the best of them (none if the test set would choose it)."""

    held_out: str
    results: list[EpochResult] = field(default_factory=list)
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, list[float]]:
        """The numbers under the names that `plots.curves` takes; NaN where an epoch was not scored."""
        return {
            "train_accuracy": [result.train_accuracy for result in self.results],
            "train_loss": [result.train_loss for result in self.results],
            "held_out_accuracy": [result.held_out_accuracy for result in self.results],
            "held_out_loss": [result.held_out_loss for result in self.results],
            "lr": [result.learning_rate for result in self.results],
        }

    @property
    def final_accuracy(self) -> float:
        """Of the last epoch; NaN if it was not scored."""
        return self.results[-1].held_out_accuracy

    @property
    def best(self) -> tuple[int, float]:
        """The first epoch, from 1, that reached the highest accuracy, and that; the last and NaN if none was scored."""
        accuracies = self.values["held_out_accuracy"]
        epoch = int(np.nanargmax(accuracies)) + 1 if np.isfinite(accuracies).any() else len(accuracies)
        return epoch, accuracies[epoch - 1]


def epoch_metrics(config: TrainingConfig, result: EpochResult) -> dict[str, float]:
    prefix = "epoch_test" if config.trains_on_all else "val"
    scores = {f"{prefix}_accuracy": result.held_out_accuracy, f"{prefix}_loss": result.held_out_loss}
    return {
        **{name: value for name, value in scores.items() if not np.isnan(value)},
        "train_accuracy": result.train_accuracy,
        "train_loss": result.train_loss,
        "lr": result.learning_rate,
        "images_per_second": result.images_per_second,
    }


def log_epoch(run: SpooledRecorder, config: TrainingConfig, result: EpochResult, recorded: Recorded) -> None:
    """One write, of what the store does not have."""
    if metrics := recorded.lacking(epoch_metrics(config, result), result.epoch):
        run.log_metrics(metrics, step=result.epoch)


def log_start(run: SpooledRecorder, config: TrainingConfig, dataset: Dataset, recorded: Recorded) -> None:
    run.log_parameters(config.as_options())
    run.log_files({"config.yaml": config.as_yaml().encode()})
    run.set_tags(
        {
            "config_fingerprint": config.fingerprint,
            ui_views.COLOR_TAG: ui_views.run_color(config.fingerprint),
            "run_fingerprint": config.run_fingerprint(dataset.digest),
            "dataset_digest": dataset.digest,
            "test_digest": dataset.test_digest,
            "mlflow.note.content": _sentence(config, dataset),
            **({"trains_on_all": "true"} if config.trains_on_all else {}),
            **provenance.tags(),
        }
    )
    sizes = {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}
    if not recorded.dataset:
        run.log_dataset(dataset.name, dataset.digest, dataset.source, sizes, "training")
    if config.trains_on_all:
        scored = "the accuracy of each epoch is the test set's" if config.epoch_evaluation else "no epoch is scored"
        warn(
            f"--validation-size 0 trains on all images: {scored}, no best epoch is kept, and the run can never be "
            "chosen as a winner"
        )


def _sentence(config: TrainingConfig, dataset: Dataset) -> str:
    schedule = "a constant rate" if config.scheduler == "none" else f"the {config.scheduler} schedule"
    extras = [f"dropout {config.dropout}"] if config.dropout else []
    extras += [f"augmentation {config.augmentation}"] if config.augmentation != "none" else []
    return (
        f"{config.network} with {config.activation} on {dataset.name} ({len(dataset.train):,} training images): "
        f"{config.optimizer} at {config.learning_rate} with {schedule}, batches of {config.batch_size}, "
        f"{count(config.epochs, 'epoch')}, {', '.join([*extras, f'seed {config.seed}'])}."
    )


def hardware_tags(config: TrainingConfig, device: torch.device, precision: torch.dtype) -> dict[str, str]:
    import torch

    from cifar_mlflow.learning import compiled, hardware

    return {
        "device": device.type,
        "hardware": hardware.describe(device),
        "precision_used": str(precision).removeprefix("torch."),
        "threads_used": str(torch.get_num_threads()),
        "kernels_used": compiled.describe(config, device),
        "version_cuda": str(torch.version.cuda or "none"),
    }


def log_results(
    run: SpooledRecorder,
    config: TrainingConfig,
    dataset: Dataset,
    session: Training,
    history: History,
    recorded: Recorded,
    log_models: bool,
) -> None:
    from cifar_mlflow.learning import evaluation, export

    epochs, accuracy = len(history.results), history.final_accuracy
    last = export.classifier(session.preprocessing, session.network, session.weights())
    files = {"curves.png": _curves(run, history)}
    kept: list[tuple[torch.nn.Module, str, int, dict[str, float]]]
    if config.trains_on_all:
        summary = "" if np.isnan(accuracy) else f" Test accuracy after the last epoch: {accuracy:.2f}%."
        kept = [(last, "last", epochs, {})]
    else:
        best_epoch, best_accuracy = history.best
        summary = (
            f" Validation accuracy after the last epoch: {accuracy:.2f}%; "
            f"the best, {best_accuracy:.2f}%, after epoch {best_epoch}."
        )
        labels = dataset.validation.labels.numpy()
        probabilities = evaluation.predict(last, dataset.validation)
        files |= _prediction_files(dataset, labels, probabilities, run.run_name)
        kept = [
            (last, "last", epochs, {"final_val_accuracy": accuracy}),
            (
                export.classifier(session.preprocessing, session.network, history.best_weights),
                "best",
                best_epoch,
                {"best_val_accuracy": best_accuracy},
            ),
        ]
    run.log_files(files)
    example = dataset.test.first(EXAMPLE_IMAGES)
    models = []
    for module, weights, epoch, metrics in kept:
        lacking = recorded.lacking(metrics)
        if not log_models or weights in recorded.models:
            if lacking:
                run.log_metrics(lacking)
            continue
        model = ExportedModel(
            module,
            name=f"{config.network.rpartition(':')[2]}-{config.activation}-{weights}",
            weights=weights,
            epoch=epoch,
            example=example.pixels.numpy(),
            probabilities=evaluation.predict(module, example),
            classes=dataset.classes,
            requirements=export.requirements(),
        )
        models.append((model, lacking))
    if len({model.epoch for model, _ in models}) < len(models):  # the last epoch was the best
        run.log_same_models(models)
    else:
        for model, metrics in models:
            run.log_model(model, metrics)
    run.set_tags({"mlflow.note.content": _sentence(config, dataset) + summary})


def _prediction_files(
    dataset: Dataset, labels: np.ndarray, probabilities: np.ndarray, run_name: str
) -> dict[str, bytes]:
    """What the last-epoch model answers to each validation image, and the confusion matrix of it."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        index=dataset.validation_indices,
        label=labels,
        predicted=probabilities.argmax(1),
        probabilities=probabilities,
    )
    score = classification.score(labels, probabilities)
    title = f"{run_name}: validation, {score.accuracy:.2f}% of {score.images:,} images"
    return {
        "val_predictions.npz": buffer.getvalue(),
        "confusion_matrix.png": plots.confusion_matrix(score.confusion, dataset.classes, title),
    }


def _curves(run: SpooledRecorder, history: History) -> bytes:
    return plots.curves(history.values, history.held_out, run.run_name)


def log_failure(
    run: SpooledRecorder, config: TrainingConfig, dataset: Dataset, history: History, error: BaseException
) -> None:
    killed = isinstance(error, KeyboardInterrupt | Pruned)
    reason = redact(str(error)) or type(error).__name__
    epochs = len(history.results)
    try:
        note = f"{_sentence(config, dataset)} Ended after {epochs} of {config.epochs} epochs: {reason}"
        failure = {"failure": reason[:5000], "failure_type": type(error).__name__}
        outcome = {"pruned": "true"} if isinstance(error, Pruned) else failure
        run.set_tags({**outcome, "mlflow.note.content": note[:5000]})
        if epochs:
            run.log_files({"curves.png": _curves(run, history)})
    finally:
        run.finish("KILLED" if killed else "FAILED")
