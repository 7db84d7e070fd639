"""Train one network, and leave behind a run that tells everything about it."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cifar_mlflow.analysis import classification, plots
from cifar_mlflow.config import TrainingConfig, without_effect
from cifar_mlflow.errors import ConfigurationError, TrackingError
from cifar_mlflow.jobs import interruption
from cifar_mlflow.jobs.progress import TrainingProgress, warn
from cifar_mlflow.tracking import provenance, views
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.recorder import ExportedModel, Recorder

if TYPE_CHECKING:
    import torch

    from cifar_mlflow.learning.data import Dataset
    from cifar_mlflow.learning.training import EpochResult, Training

EXAMPLE_IMAGES = 4  # two or more, or the exported model would take that number of images only


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished run came to. Accuracies are per cent, of the split that `held_out` names."""

    run_id: str
    run_name: str
    experiment_id: str
    url: str | None
    dataset: str
    held_out: str
    final_accuracy: float
    best_accuracy: float
    best_epoch: int


class Pruned(Exception):
    """Raised by a listener to end a run early, because others do better; the run is KILLED, with the tag pruned."""


class Listener(Protocol):
    """Who is told how far a training is."""

    def step(self, images: int, steps: int) -> None: ...

    def epoch(self, result: EpochResult) -> None: ...


def train(config: TrainingConfig, *, experiment: str | None = None, run_name: str | None = None) -> TrainOutcome:
    """Trains by `config` and records it in `experiment` (default: the dataset's name).

    The run ends FINISHED; FAILED if training cannot go on; KILLED if it is interrupted, with all that was reached.

    Raises:
        CifarMlflowError: see `cifar_mlflow.errors`; nothing is left RUNNING.
    """
    _check_paths(config)
    for text in without_effect(config):
        warn(text)
    store = tracking_store.connect()
    if store.project_run_id and (experiment or run_name):
        warn("--experiment and --run-name have no effect under `mlflow run`: its own options name them")

    # torch is imported only now, so that a fault found above is told at once.
    from cifar_mlflow.learning import data, hardware

    hardware.choose_device(config)
    dataset = data.load(config)
    experiment = experiment or store.environment_experiment() or dataset.name
    run_name = run_name or f"{dataset.name}-{config.activation}-{config.optimizer}-seed{config.seed}"
    start = functools.partial(Recorder.start, store, experiment, run_name, {"kind": "single"})
    with TrainingProgress(config.epochs, len(dataset.train), held_out_name(config)) as progress:
        outcome = record_training(config, dataset, start, progress)
    # The training is recorded; that MLflow's UI shows it less well is no reason to fail.
    with suppress(TrackingError):
        views.publish_views(store, outcome.experiment_id, trains_on_all=config.trains_on_all)
    return outcome


def held_out_name(config: TrainingConfig) -> str:
    """The split whose accuracy is taken after each epoch."""
    return "test" if config.trains_on_all else "validation"


def record_training(
    config: TrainingConfig,
    dataset: Dataset,
    start: Callable[[], Recorder],
    listener: Listener,
    *,
    log_models: bool = True,
) -> TrainOutcome:
    """Trains into the run that `start` starts, and ends it, whatever happens."""
    from cifar_mlflow.learning.training import Training

    history = History(held_out_name(config))
    run = None
    try:
        # A signal that came while the run is being made would leave it RUNNING for ever.
        with interruption.held_back():
            run = start()
        _record_start(run, config, dataset)
        session = Training(config, dataset, on_step=listener.step)
        run.set_tags(_hardware_tags(session))
        best: dict[str, torch.Tensor] = {}
        for result in session.epochs():
            history.add(result)
            run.log_metrics(_epoch_metrics(config, result), step=result.epoch)
            if history.best_epoch == result.epoch and not config.trains_on_all:
                best = session.weights()
            listener.epoch(result)
        _record_results(run, config, dataset, session, history, best, log_models)
        run.finish("FINISHED")
    except BaseException as error:
        # The error is what the user must hear of, even if the store cannot be told any more.
        with suppress(Exception):
            if run is not None:
                _record_failure(run, config, dataset, history, error)
        raise
    accuracies = history.values["held_out_accuracy"]
    return TrainOutcome(
        run.run_id,
        run.run_name,
        run.experiment_id,
        run.url,
        dataset.name,
        history.held_out,
        accuracies[-1],
        max(accuracies),
        history.best_epoch,
    )


@dataclass
class History:
    """The numbers of the epochs so far, under the names that `plots.curves` takes."""

    held_out: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, result: EpochResult) -> None:
        now = {
            "train_accuracy": result.train_accuracy,
            "train_loss": result.train_loss,
            "held_out_accuracy": result.held_out_accuracy,
            "held_out_loss": result.held_out_loss,
            "lr": result.learning_rate,
        }
        for name, value in now.items():
            self.values.setdefault(name, []).append(value)

    @property
    def best_epoch(self) -> int:
        """The first epoch, from 1, that reached the highest accuracy."""
        return int(np.argmax(self.values["held_out_accuracy"])) + 1


def _check_paths(config: TrainingConfig) -> None:
    """Under `mlflow run` the command stands in the project's directory, so a relative path would mislead."""
    if not os.environ.get("MLFLOW_RUN_ID"):
        return
    relative = [
        f"--{name.replace('_', '-')}: {value!r} is relative; give an absolute path under `mlflow run`"
        for name, value in (("data_dir", config.data_dir), ("dataset", config.dataset))
        if ((name == "data_dir" and value != "auto") or value.endswith(".npz"))
        and not Path(value).expanduser().is_absolute()
    ]
    if relative:
        raise ConfigurationError(relative)


def _epoch_metrics(config: TrainingConfig, result: EpochResult) -> dict[str, float]:
    prefix = "epoch_test" if config.trains_on_all else "val"
    return {
        f"{prefix}_accuracy": result.held_out_accuracy,
        f"{prefix}_loss": result.held_out_loss,
        "train_accuracy": result.train_accuracy,
        "train_loss": result.train_loss,
        "lr": result.learning_rate,
        "images_per_second": result.images_per_second,
    }


def _record_start(run: Recorder, config: TrainingConfig, dataset: Dataset) -> None:
    run.log_parameters(config.as_options())
    run.log_files({"config.yaml": config.as_yaml().encode()})
    run.set_tags(
        {
            "config_fingerprint": config.fingerprint,
            views.COLOR_TAG: views.run_color(config.fingerprint),
            "run_fingerprint": config.run_fingerprint(dataset.digest),
            "dataset_digest": dataset.digest,
            "test_digest": dataset.test_digest,
            "mlflow.note.content": _sentence(config, dataset),
            **({"trains_on_all": "true"} if config.trains_on_all else {}),
            **provenance.tags(),
        }
    )
    sizes = {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}
    run.log_dataset(dataset.name, dataset.digest, dataset.source, sizes, "training")
    if config.trains_on_all:
        warn(
            "--validation-size 0 trains on all images: the accuracy of each epoch is the test set's, no best epoch "
            "is kept, and the run can never be chosen as a winner"
        )


def _sentence(config: TrainingConfig, dataset: Dataset) -> str:
    schedule = "a constant rate" if config.scheduler == "none" else f"the {config.scheduler} schedule"
    extras = [f"dropout {config.dropout}"] if config.dropout else []
    extras += [f"augmentation {config.augmentation}"] if config.augmentation != "none" else []
    return (
        f"{config.network} with {config.activation} on {dataset.name} ({len(dataset.train):,} training images): "
        f"{config.optimizer} at {config.learning_rate} with {schedule}, batches of {config.batch_size}, "
        f"{config.epochs} epochs, {', '.join([*extras, f'seed {config.seed}'])}."
    )


def _hardware_tags(session: Training) -> dict[str, str]:
    import torch

    from cifar_mlflow.learning import hardware

    return {
        "device": session.device.type,
        "hardware": hardware.describe(session.device),
        "precision_used": str(session.precision).removeprefix("torch."),
        "threads_used": str(torch.get_num_threads()),
        "version_cuda": str(torch.version.cuda or "none"),
    }


def _record_results(
    run: Recorder,
    config: TrainingConfig,
    dataset: Dataset,
    session: Training,
    history: History,
    best: dict[str, torch.Tensor],
    log_models: bool,
) -> None:
    from cifar_mlflow.learning import evaluation, export

    accuracies = history.values["held_out_accuracy"]
    last = export.classifier(session.preprocessing, session.network, session.weights())
    files = {"curves.png": _curves(run, history)}
    kept: list[tuple[torch.nn.Module, str, int, dict[str, float]]]
    if config.trains_on_all:
        summary = f"Test accuracy after the last epoch: {accuracies[-1]:.2f}%."
        kept = [(last, "last", len(accuracies), {})]
    else:
        summary = (
            f"Validation accuracy after the last epoch: {accuracies[-1]:.2f}%; "
            f"the best, {max(accuracies):.2f}%, after epoch {history.best_epoch}."
        )
        labels = dataset.validation.labels.numpy()
        probabilities = evaluation.predict(last, dataset.validation)
        files |= _prediction_files(dataset, labels, probabilities, run.run_name)
        kept = [
            (last, "last", len(accuracies), {"final_val_accuracy": accuracies[-1]}),
            (
                export.classifier(session.preprocessing, session.network, best),
                "best",
                history.best_epoch,
                {"best_val_accuracy": max(accuracies)},
            ),
        ]
    run.log_files(files)
    for module, weights, epoch, metrics in kept:
        model_id = None
        if log_models:
            model = ExportedModel(
                module,
                name=f"{config.network}-{config.activation}-{weights}",
                weights=weights,
                epoch=epoch,
                example=dataset.test.pixels[:EXAMPLE_IMAGES].numpy(),
                classes=dataset.classes,
                requirements=export.requirements(),
            )
            model_id = run.log_model(model)
        run.log_metrics(metrics, model_id=model_id)
    run.set_tags({"mlflow.note.content": f"{_sentence(config, dataset)} {summary}"})


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


def _curves(run: Recorder, history: History) -> bytes:
    return plots.curves(history.values, history.held_out, run.run_name)


def _record_failure(
    run: Recorder, config: TrainingConfig, dataset: Dataset, history: History, error: BaseException
) -> None:
    killed = isinstance(error, KeyboardInterrupt | Pruned)
    reason = str(error) or type(error).__name__
    epochs = len(history.values.get("lr", ()))
    try:
        note = f"{_sentence(config, dataset)} Ended after {epochs} of {config.epochs} epochs: {reason}"
        failure = {"failure": reason[:5000], "failure_type": type(error).__name__}
        outcome = {"pruned": "true"} if isinstance(error, Pruned) else failure
        run.set_tags({**outcome, "mlflow.note.content": note[:5000]})
        if epochs:
            run.log_files({"curves.png": _curves(run, history)})
    finally:
        run.finish("KILLED" if killed else "FAILED")
