"""Runs that broke off: whether one can be taken up again, and what of it the store holds already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.outbox import delivery, log, state
from cifar_mlflow.tracking.outbox.delivery import RUN_TAG
from cifar_mlflow.tracking.outbox.log import Busy, Outbox
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.reading import models as history
from cifar_mlflow.tracking.reading import runs, selection
from cifar_mlflow.tracking.reading.recorded_training import TRAINED_NOTHING
from cifar_mlflow.tracking.store import Store, translated_errors
from cifar_mlflow.tracking.writing.recorder import Recorder

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

# What a training writes before its first step, and without which nobody knows what it was to be.
NEEDED = ("config_fingerprint", "dataset_digest", "host")


@dataclass(frozen=True)
class Recorded:
    """What a run has in the store: the steps of each metric, its complete models by their weights, its dataset."""

    steps: Mapping[str, frozenset[int]] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    dataset: bool = False

    def lacking(self, metrics: Mapping[str, float], step: int = 0) -> dict[str, float]:
        """Those of `metrics` that have no value at `step`, so that none gets a second."""
        return {name: value for name, value in metrics.items() if step not in self.steps.get(name, ())}


@dataclass(frozen=True)
class BrokenOff:
    """A training run that no process is at work on, of any status; a FINISHED one has nothing left to train.

    `offline_id` is what it was called before it reached a store, if it began offline.
    """

    run_id: str
    offline_id: str
    name: str
    experiment: str
    status: str
    config: TrainingConfig
    tags: dict[str, str]
    recorded: Recorded


def deliver_waiting(store: Store, run_id: str) -> tuple[int, list[str]]:
    """Takes to the store what earlier processes have left on disk; returns how many writes, and what it refuses.

    Raises:
        TrackingError: a process is at work on the run, or the store cannot be reached.
    """
    count, refused = 0, []
    for directory in log.outboxes(spool_directory()):
        if run_id not in (directory.name, state.look(directory).run_id):
            continue
        try:
            opened = Outbox(directory)
        except Busy:
            raise TrackingError(f"the run {run_id} is being trained by another process here; wait for it") from None
        try:
            before = opened.waiting
            delivery.deliver_all(store, opened)
            refused += opened.refused
            count += before - opened.waiting
        finally:
            opened.close()
    return count, refused


def find(store: Store, run_id: str) -> BrokenOff:
    """The run, if it can be taken up; one that began offline has two ids, and either will do.

    Raises:
        ModelError: there is none, it trained nothing, or it would fail again.
        TrackingError: a process is, or may be, at work on it.
    """
    run = _find_run(store, run_id)
    tags = run.data.tags
    if reason := _why_not(run, tags):
        raise ModelError(f"the run {run_id} {reason}")
    if run.info.status == "RUNNING":
        _refuse_if_busy(run.info.run_id, tags)
    with translated_errors(store.uri):
        experiment = store.client.get_experiment(run.info.experiment_id).name
    return BrokenOff(
        run.info.run_id,
        tags.get(RUN_TAG, ""),
        run.info.run_name,
        experiment,
        run.info.status,
        history.run_config(run),
        dict(tags),
        _recorded(store, run),
    )


def _find_run(store: Store, run_id: str) -> Run:
    if not history.RUN_ID.fullmatch(run_id):
        raise ModelError(f"--resume: {run_id!r} is no run id (32 hex digits)")
    try:
        return history.find_run(store, run_id)
    except ModelError:
        everywhere = selection.experiments(store).values()
        if began_offline := runs.search(store, everywhere, f"tags.`{RUN_TAG}` = '{run_id}'"):
            return began_offline[0]
        raise


def _why_not(run: Run, tags: Mapping[str, str]) -> str | None:
    kind = tags.get("kind", "")
    if run.info.lifecycle_stage == "deleted":
        return f"was deleted; restore it with `mlflow runs restore --run-id {run.info.run_id}`"
    if kind in TRAINED_NOTHING:
        return TRAINED_NOTHING[kind]
    if kind == "trial":
        return f"belongs to the sweep {tags.get('sweep')}, which repeats it when it is started again"
    if "reproduces" in tags:
        return f"was made by `reproduce`; start that again: cifar-mlflow reproduce {tags['reproduces']}"
    if tags.get("failure_type") == "Diverged":
        return f"failed because {tags.get('failure')}. It would fail again; start another one"
    missing = [name for name in NEEDED if name not in tags]
    missing += [f"parameter {name}" for name in TrainingConfig.model_fields if name not in run.data.params]
    if missing:
        return (
            f"({run.info.status}) was not recorded by cifar-mlflow, or broke off before its training began: it has no "
            f"{missing[0]}. Start another one"
        )
    return None


def _refuse_if_busy(run_id: str, tags: Mapping[str, str]) -> None:
    where = f"process {tags.get('process_id')} on {tags.get('host')}"
    if processes.is_elsewhere(tags):
        raise TrackingError(
            f"the run {run_id} is RUNNING by {where}. If that process is gone, say so with\n"
            f"  python -c \"import mlflow; mlflow.MlflowClient().set_terminated('{run_id}', 'KILLED')\"\n"
            "and resume it then"
        )
    if processes.is_alive(tags):
        raise TrackingError(f"the run {run_id} is being trained by {where}; wait for it, or stop it")


def _recorded(store: Store, run: Run) -> Recorded:
    run_id = run.info.run_id
    with translated_errors(store.uri):
        points = {name: store.client.get_metric_history(run_id, name) for name in run.data.metrics}
        models = [model for model in _models(store, run) if str(model.status) == "READY"]
    return Recorded(
        {name: frozenset(point.step for point in values) for name, values in points.items()},
        {model.tags.get("weights", ""): str(model.model_id) for model in models},
        bool(run.inputs and run.inputs.dataset_inputs),
    )


def _models(store: Store, run: Run) -> list[LoggedModel]:
    condition = f"source_run_id = '{run.info.run_id}'"
    return list(store.client.search_logged_models([run.info.experiment_id], condition))


def take_up(store: Store, run: BrokenOff, tags: Mapping[str, str]) -> SpooledRecorder:
    """The run, RUNNING again by this process, with `tags`; models that were not logged completely are removed.

    Raises:
        TrackingError: the store refuses.
    """
    client = store.client
    with translated_errors(store.uri):
        found = client.get_run(run.run_id)
        recorder = Recorder(store, run.run_id, found.info.experiment_id, run.name)
        client.update_run(run.run_id, status="RUNNING")
        times = int(run.tags.get("resumed", 0)) + 1
        recorder.set_tags({**tags, **processes.process_tags(), "resumed": str(times)})
        for outdated in {"failure", "failure_type"} & set(run.tags):
            client.delete_tag(run.run_id, outdated)
        for model in _models(store, found):
            if str(model.status) != "READY":
                client.delete_logged_model(model.model_id)
    return SpooledRecorder.to(store, recorder, f"{run.run_id}-{times}", run.experiment, tags)
