"""Trainings that the store holds, with all that is needed to do them again."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.reading import models, runs
from cifar_mlflow.tracking.store import Run, Store

# Tags that a training writes before its first step, and without which it cannot be done again.
NEEDED = ("config_fingerprint", "dataset_digest", "device", "precision_used", "threads_used")
TRAINED_NOTHING = {
    "sweep": "is the parent of a sweep and trained nothing itself; name one of its runs",
    "job": "was made by `mlflow run` for another command and trained nothing",
}
# What may change the numbers of a training: tag to what it is called in a sentence.
CONDITIONS = {
    "git_commit": "commit",
    **{f"version_{of}": of for of in ("cifar_mlflow", "python", "torch", "torchvision", "cuda", "numpy", "mlflow")},
    **{name: name for name in ("device", "hardware")},
    **{f"{name}_used": name for name in ("precision", "threads", "kernels")},
}


@dataclass(frozen=True)
class RecordedTraining:
    """A run that trained a network: its configuration as given, and tags that tell what came of each `auto`."""

    run_id: str
    name: str
    status: str
    experiment: str
    config: TrainingConfig
    tags: dict[str, str]


def find(store: Store, what: str) -> RecordedTraining:
    """The training run that `what` names: the run itself, or a model, as in `models.find_model`.

    ModelError if there is none, it trained nothing, or it was not recorded by this package.
    """
    run = runs.find_kept(store, models.run_of(store, what))
    tags = run.data.tags
    if (kind := tags.get("kind")) in TRAINED_NOTHING:
        raise ModelError(f"the run {run.info.run_id} {TRAINED_NOTHING[kind]}")
    if missing := [f"tag {name}" for name in NEEDED if name not in tags]:
        raise ModelError(f"the run {run.info.run_id} {not_recorded(run, missing)}")
    return from_run(store, run)


def not_recorded(run: Run, missing: Sequence[str]) -> str:
    """What is wrong with a run that lacks the first of `missing`, which every training writes before its first step."""
    return (
        f"({run.info.status}) was not recorded by cifar-mlflow, or broke off before its training began: "
        f"it has no {missing[0]}"
    )


def from_run(store: Store, run: Run) -> RecordedTraining:
    """The run as a recorded training; ModelError as `runs.configuration`, or if its experiment was deleted."""
    info, config = run.info, runs.configuration(run)
    experiment = store.client.get_experiment(info.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        raise ModelError(
            f"the experiment {experiment.name!r} of the run {info.run_id} was deleted; restore it by "
            f"`mlflow experiments restore -x {info.experiment_id}`"
        )
    return RecordedTraining(info.run_id, info.run_name, info.status, experiment.name, config, dict(run.data.tags))
