"""Recorded trainings as something that can be done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.reading import models
from cifar_mlflow.tracking.store import Store, translated_errors

# What a training writes before its first step, and without which it cannot be done again.
NEEDED = ("config_fingerprint", "dataset_digest", "device", "precision_used", "threads_used")
TRAINED_NOTHING = {
    "sweep": "is the parent of a sweep and trained nothing itself; name one of its runs",
    "job": "was made by `mlflow run` for another command and trained nothing",
}


@dataclass(frozen=True)
class Original:
    """A run that trained a network: its configuration as given, and tags that tell what came of each `auto`."""

    run_id: str
    name: str
    status: str
    experiment: str
    config: TrainingConfig
    tags: dict[str, str]


def find_original(store: Store, what: str) -> Original:
    """The training run that `what` names: a run id, or a model as in `history.find_model`.

    Raises:
        ModelError: there is none, it trained nothing, or it was not recorded by this package.
    """
    run_id = what if models.RUN_ID.fullmatch(what) else models.find_model(store, what).run_id
    run = models.find_run(store, run_id)
    tags = run.data.tags
    if (kind := tags.get("kind")) in TRAINED_NOTHING:
        raise ModelError(f"the run {run_id} {TRAINED_NOTHING[kind]}")
    if missing := [name for name in NEEDED if name not in tags]:
        raise ModelError(
            f"the run {run_id} ({run.info.status}) was not recorded by cifar-mlflow, or broke off before its training "
            f"began: it has no tag {', '.join(missing)}"
        )
    with translated_errors(store.uri):
        experiment = store.client.get_experiment(run.info.experiment_id).name
    return Original(run_id, run.info.run_name, run.info.status, experiment, models.run_config(run), dict(tags))


def curves(store: Store, run_id: str, names: Sequence[str]) -> dict[str, dict[int, float]]:
    """Metric to its values by step, of those `names` that the run has; of two values at one step the later."""
    found = {}
    there = models.find_run(store, run_id).data.metrics
    with translated_errors(store.uri):
        for name in names:
            if name in there:
                points = store.client.get_metric_history(run_id, name)
                found[name] = {point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}
    return found
