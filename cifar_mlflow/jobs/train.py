"""Train one network, and leave behind a run that tells everything about it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_mlflow import process_state
from cifar_mlflow.config.rules import resolve, without_effect
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.jobs import sync
from cifar_mlflow.jobs.listener import TrainingListener, current_listener, say, warn
from cifar_mlflow.jobs.training import data, signals
from cifar_mlflow.jobs.training import pretrained as starting_weights
from cifar_mlflow.jobs.training.checkpoints import RunCheckpoints
from cifar_mlflow.jobs.training.neighbours import Neighbours, place_of
from cifar_mlflow.jobs.training.record import TrainingRecord
from cifar_mlflow.jobs.training.results import held_out_name
from cifar_mlflow.memory import enough_memory
from cifar_mlflow.text import count
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.processes import process_tags
from cifar_mlflow.tracking.store import Store, connect, environment_experiment
from cifar_mlflow.tracking.writing import ui_views
from cifar_mlflow.tracking.writing.system_metrics import SystemMetrics, enable

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.networks.pretrained import Pretrained

DRAIN_TIMEOUT_AFTER_FAILURE = 5.0  # seconds for which a run that broke off waits for a store that takes nothing


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished run came to. Accuracies are per cent, of the split that `held_out` names; NaN if not scored."""

    run_id: str
    run_name: str
    experiment: str
    experiment_id: str
    url: str | None
    dataset: str
    config: TrainingConfig
    held_out: str
    final_accuracy: float
    best_accuracy: float
    best_epoch: int
    waiting: int
    """Writes that have not reached the store; they are kept in `spool` until `sync` delivers them."""
    spool: Path
    balanced_accuracy: float | None = None
    """The mean recall after the last epoch, per cent, where the classes are unequal; else None."""


@process_state.preserved()
def train(
    config: TrainingConfig,
    *,
    experiment: str | None = None,
    run_name: str | None = None,
    offline: bool = False,
    wait: bool = False,
    system_metrics: bool = False,
) -> TrainOutcome:
    """Trains by `config` and records it in `experiment` (default: the dataset's name).

    The run ends FINISHED; FAILED if training cannot go on; KILLED if it is interrupted, with all that was reached. Once
    it has begun, no store is waited for: what does not arrive stays in the run's outbox. `offline` asks for no store.
    `wait` makes no run before it is its turn among the trainings of this machine. `system_metrics` also records how
    busy the machine is; without it, MLflow's own variable decides.
    Its checkpoints, from which `jobs.resume` goes on, are removed when nothing is left to go on with.

    Raises:
        CifarMlflowError: see `cifar_mlflow.errors`; nothing is left RUNNING.
    """
    config = resolve(config.model_dump(exclude_unset=True))
    neighbours = Neighbours(wait=wait, instead="give each training --threads {}")
    enable(system_metrics)
    for text in without_effect(config):
        warn(text)
    checkpoints = RunCheckpoints()
    sync.hint()
    store = None if offline else connect()
    if store and store.project_run_id and (experiment or run_name):
        warn("--experiment and --run-name have no effect under `mlflow run`: its own options name them")

    # torch is imported only now, so that a fault found above is told at once.
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.compiled import bindings

    on_cpu = hardware.choose_device(config).type == "cpu"
    if on_cpu and config.accelerate == "auto" and (warning := bindings.warning()):
        warn(warning)
    dataset = data.load(config)
    for text in data.without_effect(config, dataset):
        warn(text)
    pretrained = starting_weights.read(config, store)
    experiment = experiment or environment_experiment(store) or dataset.name
    network = config.network.partition(":")[2][:50] or config.activation  # which the user's own may not have
    run_name = run_name or f"{dataset.name[:150]}-{network}-{config.optimizer}-seed{config.seed}"
    of_mlflow = store.client.get_run(store.project_run_id) if store and store.project_run_id else None
    listed_as = of_mlflow.info.run_name if of_mlflow else run_name
    tags = {"kind": "single", **process_tags()}
    start = functools.partial(SpooledRecorder.start, store, experiment, run_name, tags)
    with closing(checkpoints), neighbours.turn(listed_as, place_of(config)):
        return train_watched(store, config, dataset, start, checkpoints, pretrained=pretrained)


def train_watched(
    store: Store | None,
    config: TrainingConfig,
    dataset: Dataset,
    start: Callable[[], SpooledRecorder],
    checkpoints: RunCheckpoints | None = None,
    *,
    pretrained: Pretrained | None = None,
    last_epoch: int | None = None,
) -> TrainOutcome:
    """As `record_training`, told to who listens; gives the experiment of the run its views."""
    from cifar_mlflow.learning import hardware

    images_done = checkpoints.images_done if checkpoints else 0
    following = current_listener().training(config, len(dataset.train), images_done)
    with hardware.settings_kept(), following as listener:
        outcome = record_training(
            config, dataset, start, listener, checkpoints=checkpoints, pretrained=pretrained, last_epoch=last_epoch
        )
    if store and not outcome.waiting:
        with suppress(TrackingError):  # that MLflow's UI shows a recorded training less well is no reason to fail
            ui_views.publish_views(store, outcome.experiment_id, trains_on_all=config.trains_on_all)
    return outcome


def record_training(
    config: TrainingConfig,
    dataset: Dataset,
    start: Callable[[], SpooledRecorder],
    listener: TrainingListener,
    *,
    log_models: bool = True,
    drain_timeout: float | None = None,
    checkpoints: RunCheckpoints | None = None,
    pretrained: Pretrained | None = None,
    last_epoch: int | None = None,
) -> TrainOutcome:
    """Trains into the run that `start` starts, and ends it, whatever happens; a fault of the network is told before.

    It goes on from the checkpoint that `checkpoints` has read, if any, and keeps more there. At the end it waits until
    all has reached the store, or nothing did for `drain_timeout` seconds (default: see `SpooledRecorder.close`).
    `pretrained` are the weights that `config` names; `last_epoch` is the one after which a run ended whose time was up.
    """
    from cifar_mlflow.learning.check import check
    from cifar_mlflow.learning.training import Training

    checkpoints, machine = checkpoints or RunCheckpoints(kept=False), SystemMetrics(warn)
    checked = check(config, dataset, pretrained, exported=log_models)
    for text in checked.warnings:
        warn(text)
    for text in filter(None, [checked.fitted and f"fitted to the images: {checked.fitted}", checked.start]):
        say(f"{config.network}: {text}")
    current_listener().computing()
    record, stop = None, signals.Stop()
    try:
        with signals.held_back():  # between its making and what follows, the run would be left RUNNING for ever
            run = start()
            record = TrainingRecord(run, config, dataset, pretrained)
        listener.recording(run)
        checkpoints.open(run.run_id)
        record.log_start()

        def between_steps() -> None:
            if stop.asked:
                checkpoints.save()
                stop.now()
            checkpoints.save_if_due()
            machine.write()

        with enough_memory("memory is short; try a smaller --batch-size or network, or fewer images"):
            session = Training(
                config, dataset, listener.step, between_steps, checked.memory_format, pretrained, last_epoch
            )
            checkpoints.attach(session, record)
            record.log_session(session, checked.fitted)
            machine.start(run.log_metrics, run.recorded.samples, gpu=session.device.type == "cuda")
            with stop.between_steps(session.check_soon):
                for result in session.epochs():
                    record.log_epoch(result, session)
                    checkpoints.save_after_epoch()
                    machine.write()
                    listener.epoch(result)
                    if stop.asked:
                        checkpoints.save()
                        stop.now()
            if session.stopping.reason:
                say(f"ended after {count(record.results[-1].epoch, 'epoch')}: {session.stopping.reason}")
            record.log_results(session, log_models)
            machine.close()
        run.finish("FINISHED")
    except BaseException as error:
        if record is not None:
            with suppress(Exception):
                machine.close()
            with suppress(Exception):  # the user must hear of `error`, even if the store cannot be told any more
                record.log_failure(error)
            if waiting := run.close(min(drain_timeout or DRAIN_TIMEOUT_AFTER_FAILURE, DRAIN_TIMEOUT_AFTER_FAILURE)):
                kept = f"in {run.directory} for the tracking store; `cifar-mlflow sync` delivers them"
                say(f"{count(waiting, 'write')} waiting {kept}")
        checkpoints.give_up(error)
        raise
    checkpoints.discard()  # the outbox has everything now, on disk
    waiting = run.close(drain_timeout)
    if waiting and (reason := run.trouble):
        warn(f"the tracking store takes nothing: {reason}")
    return TrainOutcome(
        run.run_id,
        run.run_name,
        run.experiment,
        run.experiment_id,
        run.url,
        dataset.name,
        config,
        held_out_name(config),
        record.results[-1].held_out_accuracy,
        record.best.held_out_accuracy,
        record.best.epoch,
        waiting,
        run.directory,
        record.results[-1].held_out_balanced_accuracy if data.unequal_classes(dataset) else None,
    )
