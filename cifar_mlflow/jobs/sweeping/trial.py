"""One run of a sweep, as a worker process trains it: the function that the sweep hands to its executor."""

from __future__ import annotations

import functools
import importlib
import math
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError, ModelError, TrackingError, TrainingError
from cifar_mlflow.jobs import sync
from cifar_mlflow.jobs.console import OwnProcess
from cifar_mlflow.jobs.listener import TrainingListener, listen, say, warn
from cifar_mlflow.jobs.train import record_training
from cifar_mlflow.jobs.training import checkpoints, data, pretrained
from cifar_mlflow.jobs.training.checkpoints import RunCheckpoints, position
from cifar_mlflow.jobs.training.record import Pruned
from cifar_mlflow.records import TrialOutcome
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.processes import process_tags
from cifar_mlflow.tuning.executors import Tell

if TYPE_CHECKING:
    from cifar_mlflow.jobs.training.record import TrainingRecord
    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.networks.pretrained import Pretrained
    from cifar_mlflow.learning.training import EpochResult, Training

# Seconds for which a run that has ended waits for a store that takes nothing; the sweep delivers what is left.
DRAIN_TIMEOUT = 2.0
PATIENCE = 600.0  # seconds, of a machine from which nobody else delivers
SETTINGS_OF_DATA = {
    "dataset", "data_dir", "validation_size", "split_seed", "image_size", "test_size", "skip_unreadable",
}  # fmt: skip
# The value of an epoch that an objective is made of, where it is not the accuracy.
SCORES = {"val_loss": "held_out_loss", "final_val_balanced_accuracy": "held_out_balanced_accuracy"}
SETTINGS = SETTINGS_OF_DATA | {"network", "pretrained"}
# What a run imports only when it comes to it, each a second or so.
NEEDED = ("cifar_mlflow.learning.training", "cifar_mlflow.learning.export", "matplotlib.backends.backend_agg")
NEEDED_FOR_MODELS = ("mlflow.pytorch", "torch.export._trace")


@dataclass(frozen=True)
class Expected:
    """What a worker on another machine must find: the sweep's parent in the store, and what runs are made from."""

    run_id: str
    sweep_id: str
    digests: tuple[str, str, str]


@dataclass(frozen=True)
class TrialRun:
    """A run to train: its configuration, and the name and tags of the MLflow run."""

    config: TrainingConfig
    name: str
    tags: dict[str, str]


def run_trial(
    spec: SweepConfig,
    experiment: str,
    trial: TrialRun,
    tell: Tell,
    *,
    offline: bool = False,
) -> TrialOutcome:
    """Trains `trial` into a run of its own; one that broke off goes on from its last checkpoint, in another run.

    After each epoch that is scored, `tell` is given the epoch and the objective; by its answer the run is PRUNED.

    Raises:
        ConfigurationError: data or network are no longer what the sweep was started with.
        TrainingError: the training cannot go on; the run is FAILED, with the reason.
    """
    from cifar_mlflow.learning.data import datasets

    dataset = datasets.without_fold(load_dataset(trial.config), trial.config)
    here = digests(settings(trial.config))
    if trial.config.run_fingerprint(*here) != trial.tags["run_fingerprint"]:
        raise ConfigurationError(
            "data, network or weights have changed since the sweep was started; start it again", "sweep"
        )
    tags = {**trial.tags, **process_tags()}
    store = None if offline else _store()
    start = functools.partial(SpooledRecorder.start, store, experiment, trial.name, tags, may_wait=True)
    reporter = _Reporter(spec.objective, tell)
    try:
        with closing(TrialCheckpoints(f"{spec.name}.{trial.tags['run_fingerprint']}", trial.config, reporter)) as kept:
            outcome = record_training(
                trial.config,
                dataset,
                start,
                reporter,
                log_models=spec.log_models,
                drain_timeout=DRAIN_TIMEOUT,
                checkpoints=kept,
                pretrained=_weights(settings(trial.config)),
            )
    except Pruned:
        return TrialOutcome("PRUNED")
    best = spec.objective == "best_val_accuracy"
    value = outcome.best_accuracy if best else reporter.value
    return TrialOutcome("FINISHED", value, images=len(dataset.validation))


def prepare(spec: SweepConfig, *, offline: bool = False, expected: Expected | None = None) -> None:
    """Imports what takes long, checks the store and reads the data, before the first run is given out.

    On another machine they must be those that the driver has.
    """
    listen(OwnProcess())
    for name in needed(spec):
        importlib.import_module(name)
    if expected:
        _compare(spec, expected)
        return
    if not offline:
        _store()
    load_dataset(spec.base_config)


def _compare(spec: SweepConfig, expected: Expected) -> None:
    """Raises CifarMlflowError with all that is not as the driver has it. Delivers what earlier workers have left."""
    faults = []
    try:
        _store().client.get_run(expected.run_id)
        _deliver(expected.sweep_id)
    except TrackingError as error:
        faults.append(f"the tracking store: {error}")
    try:
        here = digests(settings(spec.base_config))
        for what, digest, wanted in zip(("data", "network", "weights"), here, expected.digests, strict=True):
            if digest != wanted:
                faults.append(f"other {what} than the driver has (digest {digest}, not {wanted})")
    except CifarMlflowError as error:
        faults.append(f"the data: {error}")
    if faults:
        raise CifarMlflowError("; ".join(faults))


def needed(spec: SweepConfig) -> list[str]:
    """The modules that a worker imports."""
    return [__name__, *NEEDED, *(NEEDED_FOR_MODELS if spec.log_models else ())]


@contextmanager
def delivered(trial: TrialRun) -> Iterator[None]:
    """Waits, at the end of the block, until the store has what this machine has of the trial's sweep.

    TrackingError if it takes nothing for PATIENCE seconds. What was interrupted is delivered by the next worker here.
    """
    try:
        yield
    finally:
        if not isinstance(sys.exception(), KeyboardInterrupt):
            until = time.monotonic() + PATIENCE
            while left := _deliver(trial.tags["sweep_id"]):
                if time.monotonic() > until:
                    what = f"the run ended, and waits on {socket.gethostname()} for the tracking store"
                    raise TrackingError(f"{what} ({next(iter(left.values()))}); `cifar-mlflow sync` there delivers it")
                time.sleep(1.0)


def _deliver(sweep_id: str) -> dict[str, str]:
    """What waits of the sweep on this machine, with the reasons, after it was tried."""
    return sync.deliver(_store(), lambda tags: tags.get("sweep_id") == sweep_id).waiting


class _Reporter(TrainingListener):
    def __init__(self, objective: str, tell: Tell) -> None:
        self._objective, self._tell = objective, tell
        self.value = math.nan

    def epoch(self, result: EpochResult) -> None:
        self.value = getattr(result, SCORES.get(self._objective, "held_out_accuracy"))
        if not math.isnan(self.value) and not self._tell((result.epoch, self.value)):
            raise Pruned(f"pruned after epoch {result.epoch}: others do better")


class TrialCheckpoints(RunCheckpoints):
    """The checkpoints of a trial, by the trial's name: the run in which it goes on is another one.

    A trial that is done within `checkpoints.SECONDS` writes none, unless it is interrupted.
    """

    def __init__(self, name: str, config: TrainingConfig, reporter: _Reporter) -> None:
        super().__init__()
        self._name, self._config, self._reporter = name, config, reporter

    def open(self, run_id: str) -> None:
        """Takes the trial for this process; if another one here trains the same, this one keeps no checkpoints."""
        from cifar_mlflow.learning import hardware

        saved: Mapping[str, Any] | None = None
        try:
            super().open(self._name)
            saved, faults = self.read()
        except TrackingError:
            return
        except ModelError as error:
            faults = [str(error)]
        for told in faults:
            warn(told)
        here = hardware.choose_device(self._config).type
        if saved and (saved["config"], saved["training"]["device"]) == (self._config.model_dump(mode="json"), here):
            say(f"run {run_id} goes on after {position(saved)}")
        else:  # there is none that is whole, or it is not of what is trained now
            self._saved = None
            self.discard()

    def attach(self, session: Training, record: TrainingRecord) -> None:
        super().attach(session, record)
        for result in record.results:  # the sweep may not have heard of them, or have forgotten them
            self._reporter.epoch(result)

    def save_after_epoch(self) -> None:
        if self._files and time.monotonic() - self._last_time >= checkpoints.SECONDS:
            self.save()

    def save(self) -> None:
        try:
            super().save()
        except TrainingError as error:  # the trial's result needs no checkpoint
            warn(str(error))

    def give_up(self, error: BaseException) -> None:
        """What broke off goes on later; what failed or was pruned would come to the same again."""
        if isinstance(error, Pruned | TrainingError):
            self.discard()


def digests(of: TrainingConfig) -> tuple[str, str, str]:
    """Those of the data, of a network of the user's own, and of the weights it starts from (else empty), as of now."""
    from cifar_mlflow.learning.networks import source

    own, weights = source.of(of.network), _weights(of)
    return load_dataset(of).digest, own.digest if own else "", weights.digest if weights else ""


_store = functools.cache(tracking_store.connect)


def settings(config: TrainingConfig) -> TrainingConfig:
    """What of `config` says what a run is made from: data, network and weights; the rest as it is by default."""
    return TrainingConfig(**config.model_dump(include=SETTINGS))


def data_settings(config: TrainingConfig) -> TrainingConfig:
    """What of `config` says which images there are, and how they are split; the rest as it is by default."""
    return TrainingConfig(**config.model_dump(include=SETTINGS_OF_DATA))


def load_dataset(config: TrainingConfig) -> Dataset:
    """The dataset of `config`; the last one is kept, since the runs of a sweep share it."""
    return _load(data_settings(config))


def forget() -> None:
    """Gives the memory back: dataset and weights are read again when they are needed, from the store in use then."""
    _store.cache_clear()
    _load.cache_clear()
    _weights.cache_clear()


@functools.lru_cache(maxsize=2)
def _weights(config: TrainingConfig) -> Pretrained | None:
    return pretrained.read(config, _store() if pretrained.is_of_store(config) else None)


@functools.lru_cache(maxsize=1)
def _load(config: TrainingConfig) -> Dataset:
    return data.load(config)
