"""One run of a sweep, as a worker process trains it: the function that the sweep hands to its executor."""

from __future__ import annotations

import functools
import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.jobs.console import OwnProcess, TrainingListener, listen
from cifar_mlflow.jobs.train import record_training
from cifar_mlflow.jobs.training.record import Pruned
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.processes import process_tags
from cifar_mlflow.tuning.executors import Tell

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.training import EpochResult

# Seconds for which a run that has ended waits for a store that takes nothing; the sweep delivers what is left.
DRAIN_TIMEOUT = 2.0
# What a run imports only when it comes to it, each a second or so.
NEEDED = ("cifar_mlflow.learning.training", "cifar_mlflow.learning.export", "matplotlib.backends.backend_agg")
NEEDED_FOR_MODELS = ("mlflow.pytorch", "torch.export._trace")


@dataclass(frozen=True)
class TrialRun:
    """A run to train: its configuration, and the name and tags of the MLflow run."""

    config: TrainingConfig
    experiment: str
    name: str
    tags: dict[str, str]
    log_models: bool


@dataclass(frozen=True)
class EpochReport:
    """What a worker tells after each epoch, and is answered with whether to go on."""

    epoch: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class TrialResult:
    """What a run came to: FINISHED or PRUNED, and the values that may be a sweep's objective, by name."""

    status: str
    objectives: dict[str, float]


def run_trial(trial: TrialRun, tell: Tell) -> TrialResult:
    """Trains `trial` into a run of its own, without checkpoints: a sweep repeats a run that broke off.

    Raises:
        TrainingError: the training cannot go on; the run is FAILED, with the reason.
    """
    dataset = load_dataset(trial.config)
    tags = {**trial.tags, **process_tags()}
    start = functools.partial(SpooledRecorder.start, _store(), trial.experiment, trial.name, tags, may_wait=True)
    listener = _Reporter(tell)
    try:
        outcome = record_training(
            trial.config, dataset, start, listener, log_models=trial.log_models, drain_timeout=DRAIN_TIMEOUT
        )
    except Pruned:
        return TrialResult("PRUNED", {})
    objectives = {
        "final_val_accuracy": outcome.final_accuracy,
        "best_val_accuracy": outcome.best_accuracy,
        "val_loss": listener.loss,
    }
    return TrialResult("FINISHED", objectives)


def prepare(config: TrainingConfig, log_models: bool) -> None:
    """Imports what takes long, checks the store and reads the data of `config`, before the first run is given out."""
    listen(OwnProcess())
    for name in (*NEEDED, *(NEEDED_FOR_MODELS if log_models else ())):
        importlib.import_module(name)
    _store()
    load_dataset(config)


class _Reporter(TrainingListener):
    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.loss = float("nan")

    def epoch(self, result: EpochResult) -> None:
        self.loss = result.held_out_loss
        if math.isnan(self.loss):
            return  # not scored, so nothing can be decided
        if not self._tell(EpochReport(result.epoch, result.held_out_accuracy, result.held_out_loss)):
            raise Pruned(f"pruned after epoch {result.epoch}: others do better")


@functools.cache
def _store() -> tracking_store.Store:
    return tracking_store.connect()


def load_dataset(config: TrainingConfig) -> Dataset:
    """The dataset of `config`; the last one is kept, since the runs of a sweep share it."""
    return _load(config.dataset, config.data_dir, config.validation_size, config.split_seed)


def forget_dataset() -> None:
    """Gives the memory back; the next `load_dataset` reads the files again."""
    _load.cache_clear()


@functools.lru_cache(maxsize=1)
def _load(dataset: str, data_dir: str, validation_size: int | str, split_seed: int) -> Dataset:
    from cifar_mlflow.learning.data import datasets

    return datasets.load(
        TrainingConfig.model_validate(
            {"dataset": dataset, "data_dir": data_dir, "validation_size": validation_size, "split_seed": split_seed}
        )
    )
