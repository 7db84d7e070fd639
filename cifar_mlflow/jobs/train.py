"""Train one network, and leave behind a run that tells everything about it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cifar_mlflow.config.rules import without_effect
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError, TrackingError
from cifar_mlflow.garbage import set_apart_what_is_loaded
from cifar_mlflow.jobs import sync
from cifar_mlflow.jobs.training import record, signals
from cifar_mlflow.jobs.training.checkpoints import NO_CHECKPOINTS, NOTHING, Earlier, Keeper, NoKeeper
from cifar_mlflow.jobs.training.progress import TrainingProgress, say, warn
from cifar_mlflow.text import option_name
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.outbox.spooled_recorder import PATIENCE, SpooledRecorder
from cifar_mlflow.tracking.processes import process_tags
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import ui_views

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.training import EpochResult

PATIENCE_AFTER_FAILURE = 5.0  # seconds without progress for which an interrupted run waits for the store


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished run came to. Accuracies are per cent, of the split that `held_out` names; NaN if not scored."""

    run_id: str
    run_name: str
    experiment_id: str
    url: str | None
    dataset: str
    held_out: str
    final_accuracy: float
    best_accuracy: float
    best_epoch: int
    waiting: int
    """Writes that have not reached the store; they are kept in `spool` until `sync` delivers them."""
    spool: Path


class Listener(Protocol):
    """Who is told how far a training is."""

    def step(self, images: int, steps: int) -> None: ...

    def epoch(self, result: EpochResult) -> None: ...

    def recording(self, run: SpooledRecorder) -> None: ...


def train(
    config: TrainingConfig, *, experiment: str | None = None, run_name: str | None = None, offline: bool = False
) -> TrainOutcome:
    """Trains by `config` and records it in `experiment` (default: the dataset's name).

    The run ends FINISHED; FAILED if training cannot go on; KILLED if it is interrupted, with all that was reached. Once
    it has begun, no store is waited for: what does not arrive stays in the run's spool. `offline` asks for no store.
    Its checkpoints, from which `jobs.resume` goes on, are removed when nothing is left to go on with.

    Raises:
        CifarMlflowError: see `cifar_mlflow.errors`; nothing is left RUNNING.
    """
    check_paths(data_dir=config.data_dir, dataset=config.dataset)
    for text in without_effect(config):
        warn(text)
    keeper = Keeper()
    sync.hint()
    store = None if offline else tracking_store.connect()
    if store and store.project_run_id and (experiment or run_name):
        warn("--experiment and --run-name have no effect under `mlflow run`: its own options name them")

    # torch is imported only now, so that a fault found above is told at once.
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.compiled import bindings
    from cifar_mlflow.learning.data import datasets
    from cifar_mlflow.learning.networks import build

    on_cpu = hardware.choose_device(config).type == "cpu"
    if on_cpu and config.accelerate == "auto" and (warning := bindings.warning()):
        warn(warning)
    dataset = datasets.load(config)
    build.build(config, len(dataset.classes), dataset.image_shape)  # a fault is told before a run is made
    experiment = experiment or tracking_store.environment_experiment(store) or dataset.name
    # The user's own network may have no such activation.
    network = config.network.partition(":")[2][:50] or config.activation
    run_name = run_name or f"{dataset.name[:150]}-{network}-{config.optimizer}-seed{config.seed}"
    begin = functools.partial(SpooledRecorder.start, store) if store else SpooledRecorder.start_offline
    start = functools.partial(begin, experiment, run_name, {"kind": "single", **process_tags()})
    with keeper:
        return train_watched(store, config, dataset, start, keeper=keeper)


def train_watched(
    store: Store | None,
    config: TrainingConfig,
    dataset: Dataset,
    start: Callable[[], SpooledRecorder],
    *,
    keeper: NoKeeper = NO_CHECKPOINTS,
    earlier: Earlier = NOTHING,
) -> TrainOutcome:
    """As `record_training`, with a bar on the terminal; gives the experiment of the run its views."""
    held_out = record.held_out_name(config)
    with TrainingProgress(config.epochs, len(dataset.train), held_out, earlier.images_done) as progress:
        outcome = record_training(config, dataset, start, progress, keeper=keeper, earlier=earlier)
    if store and not outcome.waiting:
        # The training is recorded; that MLflow's UI shows it less well is no reason to fail.
        with suppress(TrackingError):
            ui_views.publish_views(store, outcome.experiment_id, trains_on_all=config.trains_on_all)
    return outcome


def record_training(
    config: TrainingConfig,
    dataset: Dataset,
    start: Callable[[], SpooledRecorder],
    listener: Listener,
    *,
    log_models: bool = True,
    patience: float = PATIENCE,
    keeper: NoKeeper = NO_CHECKPOINTS,
    earlier: Earlier = NOTHING,
) -> TrainOutcome:
    """Trains into the run that `start` starts, and ends it, whatever happens.

    At the end it waits until all has reached the store, or nothing did for `patience` seconds. `keeper` keeps its
    checkpoints; without one there are none. `earlier` is where a run that broke off is taken up.
    """
    from cifar_mlflow.learning.training import Training

    set_apart_what_is_loaded()
    history = record.History(record.held_out_name(config))
    run = None
    try:
        # A signal that came while the run is being made would leave it RUNNING for ever.
        with signals.held_back():
            run = start()
        listener.recording(run)
        keeper.open(run.run_id)
        record.log_start(run, config, dataset, earlier.recorded)
        session = Training(config, dataset, on_step=listener.step, on_check=keeper.save_if_due)
        earlier.restore(session, history)
        keeper.follow(session, dataset, history)
        run.set_tags(record.hardware_tags(config, session.device, session.precision))
        for result in history.results:
            record.log_epoch(run, config, result, earlier.recorded)
        for result in session.epochs():
            history.results.append(result)
            record.log_epoch(run, config, result, earlier.recorded)
            if history.best[0] == result.epoch and not config.trains_on_all:
                history.best_weights = session.weights()
            keeper.save()
            listener.epoch(result)
        record.log_results(run, config, dataset, session, history, earlier.recorded, log_models)
        run.finish("FINISHED")
    except BaseException as error:
        # The error is what the user must hear of, even if the store cannot be told any more.
        with suppress(Exception):
            if run is not None:
                record.log_failure(run, config, dataset, history, error)
        if run is not None and (waiting := run.close(min(patience, PATIENCE_AFTER_FAILURE))):
            say(f"{waiting} writes wait for the tracking store in {run.directory}; `cifar-mlflow sync` delivers them")
        keeper.give_up(error)
        raise
    # The spool has everything now, on disk.
    keeper.discard()
    waiting = run.close(patience)
    best_epoch, best_accuracy = history.best
    return TrainOutcome(
        run.run_id,
        run.run_name,
        run.experiment_id,
        run.url,
        dataset.name,
        history.held_out,
        history.final_accuracy,
        best_accuracy,
        best_epoch,
        waiting,
        run.directory,
    )


def check_paths(*, data_dir: str, dataset: str = "") -> None:
    """Under `mlflow run` the command stands in the project's directory, so a relative path would mislead.

    Raises:
        ConfigurationError: a path is relative there.
    """
    if not os.environ.get("MLFLOW_RUN_ID"):
        return
    relative = [
        f"{option_name(name)}: {value!r} is relative; give an absolute path under `mlflow run`"
        for name, value in (("data_dir", data_dir), ("dataset", dataset))
        if ((name == "data_dir" and value != "auto") or value.endswith(".npz"))
        and not Path(value).expanduser().is_absolute()
    ]
    if relative:
        raise ConfigurationError(relative)
