"""One run of a sweep, as a worker process trains it: the function that the sweep hands to its executor."""

from __future__ import annotations

import functools
import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.console import OwnProcess
from cifar_mlflow.jobs.listener import TrainingListener, listen
from cifar_mlflow.jobs.train import record_training
from cifar_mlflow.jobs.training.record import Pruned
from cifar_mlflow.records import TrialOutcome
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.processes import process_tags
from cifar_mlflow.tuning.executors import Tell

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.training import EpochResult

# Seconds for which a run that has ended waits for a store that takes nothing; the sweep delivers what is left.
DRAIN_TIMEOUT = 2.0
SETTINGS_OF_DATA = {"dataset", "data_dir", "validation_size", "split_seed"}
# What a run imports only when it comes to it, each a second or so.
NEEDED = ("cifar_mlflow.learning.training", "cifar_mlflow.learning.export", "matplotlib.backends.backend_agg")
NEEDED_FOR_MODELS = ("mlflow.pytorch", "torch.export._trace")


@dataclass(frozen=True)
class TrialRun:
    """A run to train: its configuration, and the name and tags of the MLflow run."""

    config: TrainingConfig
    name: str
    tags: dict[str, str]


def run_trial(spec: SweepConfig, experiment: str, trial: TrialRun, tell: Tell) -> TrialOutcome:
    """Trains `trial` into a run of its own, without checkpoints: a sweep repeats a run that broke off.

    After each epoch that is scored, `tell` is given the epoch and the objective; by its answer the run is PRUNED.

    Raises:
        ConfigurationError: data or network are no longer what the sweep was started with.
        TrainingError: the training cannot go on; the run is FAILED, with the reason.
    """
    dataset = load_dataset(trial.config)
    here = digests(data_settings(trial.config), trial.config.network)
    if trial.config.run_fingerprint(*here) != trial.tags["run_fingerprint"]:
        raise ConfigurationError("data or network have changed since the sweep was started; start it again", "sweep")
    tags = {**trial.tags, **process_tags()}
    start = functools.partial(SpooledRecorder.start, _store(), experiment, trial.name, tags, may_wait=True)
    reporter = _Reporter(spec.objective, tell)
    try:
        outcome = record_training(
            trial.config, dataset, start, reporter, log_models=spec.log_models, drain_timeout=DRAIN_TIMEOUT
        )
    except Pruned:
        return TrialOutcome("PRUNED")
    best = spec.objective == "best_val_accuracy"
    return TrialOutcome("FINISHED", outcome.best_accuracy if best else reporter.value)


def prepare(spec: SweepConfig) -> None:
    """Imports what takes long, checks the store and reads the data, before the first run is given out."""
    listen(OwnProcess())
    for name in needed(spec):
        importlib.import_module(name)
    _store()
    load_dataset(spec.base_config)


def needed(spec: SweepConfig) -> list[str]:
    """The modules that a worker imports."""
    return [__name__, *NEEDED, *(NEEDED_FOR_MODELS if spec.log_models else ())]


class _Reporter(TrainingListener):
    def __init__(self, objective: str, tell: Tell) -> None:
        self._objective, self._tell = objective, tell
        self.value = math.nan

    def epoch(self, result: EpochResult) -> None:
        self.value = result.held_out_loss if self._objective == "val_loss" else result.held_out_accuracy
        if not math.isnan(self.value) and not self._tell((result.epoch, self.value)):
            raise Pruned(f"pruned after epoch {result.epoch}: others do better")


def digests(data: TrainingConfig, network: str) -> tuple[str, str]:
    """Those of the data that the settings say, and of a network of the user's own (else empty), as they are here."""
    from cifar_mlflow.learning.networks import source

    own = source.of(network)
    return load_dataset(data).digest, own.digest if own else ""


_store = functools.cache(tracking_store.connect)


def data_settings(config: TrainingConfig) -> TrainingConfig:
    """What of `config` says which images there are, and how they are split; the rest as it is by default."""
    return TrainingConfig(**config.model_dump(include=SETTINGS_OF_DATA))


def load_dataset(config: TrainingConfig) -> Dataset:
    """The dataset of `config`; the last one is kept, since the runs of a sweep share it."""
    return _load(data_settings(config))


def forget_dataset() -> None:
    """Gives the memory back; the next `load_dataset` reads the files again."""
    _load.cache_clear()


@functools.lru_cache(maxsize=1)
def _load(config: TrainingConfig) -> Dataset:
    from cifar_mlflow.learning.data import datasets

    return datasets.load(config)
