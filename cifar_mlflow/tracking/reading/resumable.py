"""Runs that broke off: whether one can be resumed, and what of it the store holds already."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.text import whole_number
from cifar_mlflow.tracking import processes, queries
from cifar_mlflow.tracking.outbox import delivery, log, state
from cifar_mlflow.tracking.outbox.delivery import RUN_TAG
from cifar_mlflow.tracking.outbox.log import Busy, Outbox
from cifar_mlflow.tracking.outbox.spooled_recorder import Recorded, SpooledRecorder
from cifar_mlflow.tracking.reading import metric_curves, naming, recorded_training, runs
from cifar_mlflow.tracking.reading.recorded_training import TRAINED_NOTHING, RecordedTraining
from cifar_mlflow.tracking.store import Run, Store
from cifar_mlflow.tracking.writing import system_metrics
from cifar_mlflow.tracking.writing.recorder import Recorder

# Tags that a training writes before its first step, and without which nobody knows what it was to be.
NEEDED = ("config_fingerprint", "dataset_digest", "host")


@dataclass(frozen=True)
class ResumableRun(RecordedTraining):
    """A training run that no process is at work on, of any status; a FINISHED one has nothing left to train."""

    recorded: Recorded

    @property
    def offline_id(self) -> str:
        """What the run was called before it reached a store; empty unless it began offline."""
        return self.tags.get(RUN_TAG, "")


def named(store: Store, word: str) -> str:
    """The id of the run that `word` names as in `naming.find`, or that is called so on this machine; either of two.

    A run that began offline has two ids. ModelError if there is no such run, or several.
    """
    if runs.RUN_ID.fullmatch(word):
        return word
    found, begins = naming.matches(store, word), bool(naming.BEGINNING.fullmatch(word))
    if begins:
        offline = runs.search(store, runs.experiments(store).values(), f"tags.`{RUN_TAG}` LIKE '{word}%'")
        found |= {run.info.run_id: run.info.run_name for run in offline}
    for directory in log.outboxes(spool_directory()):
        waiting = state.look(directory)
        if waiting.name == word or (begins and directory.name.startswith(word)):
            found.setdefault(waiting.run_id or directory.name, f"{waiting.name}, waiting in {directory}")
    if run_id := naming.only(word, found):
        return run_id
    raise ModelError(f"--resume: {word!r} names no run{naming.hint(store, word)}; give {naming.RUN}")


def deliver_waiting(store: Store, run_id: str) -> tuple[int, list[str]]:
    """Takes to the store what earlier processes have left on disk; returns how many writes, and what it refuses.

    TrackingError if a process is at work on the run, or the store cannot be reached.
    """
    count, refused = 0, []
    for directory in log.outboxes(spool_directory()):
        if run_id not in (directory.name, state.look(directory).run_id):
            continue
        try:
            opened = Outbox(directory)
        except Busy:
            raise TrackingError(f"the run {run_id} is being trained by another process here; wait for it") from None
        with closing(opened):
            before = opened.waiting
            delivery.deliver_all(store, opened)
            refused += opened.refused
            count += before - opened.waiting
    return count, refused


def find(store: Store, run_id: str) -> ResumableRun:
    """The run, if it can be resumed; one that began offline has two ids, and either will do.

    ModelError if there is none, it trained nothing, or would fail again; TrackingError if a process is at work on it.
    """
    run = _find_run(store, run_id)
    if reason := _why_not(run):
        raise ModelError(f"the run {run_id} {reason}")
    if run.info.status == "RUNNING":
        processes.refuse_if_busy(f"the run {run.info.run_id}", run.info.run_id, run.data.tags, "resume it then")
    return ResumableRun(**vars(recorded_training.from_run(store, run)), recorded=_recorded(store, run))


def _find_run(store: Store, run_id: str) -> Run:
    try:
        return runs.find(store, run_id)
    except ModelError:
        everywhere = runs.experiments(store).values()
        if began_offline := runs.search(store, everywhere, f"tags.`{RUN_TAG}` = '{run_id}'"):
            return began_offline[0]
        raise


def _why_not(run: Run) -> str | None:
    tags = run.data.tags
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
    missing = [f"tag {name}" for name in NEEDED if name not in tags]
    missing += [f"parameter {name}" for name in TrainingConfig.model_fields if name not in run.data.params]
    return f"{recorded_training.not_recorded(run, missing)}. Start another one" if missing else None


def _recorded(store: Store, run: Run) -> Recorded:
    sampled = [name for name in run.data.metrics if name.startswith(system_metrics.PREFIX)]
    curves = metric_curves.read_run(store, run.info.run_id, {*run.data.metrics} - {*sampled})
    samples = metric_curves.read_run(store, run.info.run_id, sampled[:1])  # all have the same steps
    models = queries.models_of_run(store, run.info.experiment_id, run.info.run_id)
    return Recorded(
        {name: frozenset(values) for name, values in curves.items()},
        {model.tags.get("weights", ""): model.model_id for model in models if str(model.status) == "READY"},
        bool(run.inputs and run.inputs.dataset_inputs),
        1 + max((max(points) for points in samples.values()), default=-1),
    )


def take_up(store: Store, run: ResumableRun, tags: Mapping[str, str]) -> SpooledRecorder:
    """The run, RUNNING again by this process, with `tags`; models that were not logged completely are removed."""
    recorder = Recorder.reopen(store, run.run_id)
    times = whole_number(run.tags.get("resumed"), 0) + 1
    recorder.set_tags({**tags, **processes.process_tags(), "resumed": str(times)})
    for outdated in {"failure", "failure_type"} & set(run.tags):
        store.client.delete_tag(run.run_id, outdated)
    for model in queries.models_of_run(store, recorder.experiment_id, run.run_id):
        if str(model.status) != "READY":
            store.client.delete_logged_model(model.model_id)
    resumed = SpooledRecorder.to(store, recorder, f"{run.run_id}-{times}", run.experiment, tags)
    resumed.recorded = run.recorded
    return resumed
