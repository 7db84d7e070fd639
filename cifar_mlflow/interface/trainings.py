"""Trainings from Python: one, the rest of one, many, one again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import SweepConfig, load_spec, parse_spec
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.interface.call import called
from cifar_mlflow.interface.results import Comparison, Run, Sweep

if TYPE_CHECKING:
    from cifar_mlflow.jobs.reproduce import ReproduceOutcome
    from cifar_mlflow.jobs.train import TrainOutcome
    from cifar_mlflow.learning.training import EpochResult

Configuration = TrainingConfig | Mapping[str, Any] | str | Path


def train(
    config: Configuration | None = None,
    /,
    *,
    experiment: str | None = None,
    run_name: str | None = None,
    offline: bool = False,
    tracking_uri: str | Path | None = None,
    callback: Callable[[EpochResult], object] | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Run:
    """Trains one network and records everything about it.

    `config` is a TrainingConfig, a mapping or a YAML file; `options` are fields of it, and win. `callback` is given the
    result of each epoch; what it raises ends the training. `offline` asks for no store.

    >>> run = train(dataset="digits", epochs=1, batch_size=256, offline=True)
    >>> run.name
    'digits-prelu-adam-seed0'

    Raises:
        ConfigurationError: with all faults of the configuration.
        DataError: the dataset is missing or damaged.
        TrackingError: the store cannot be used.
        TrainingError: training cannot go on.
    """
    given = read_yaml(config) if isinstance(config, str | Path) else dict(config or {})
    resolved = resolve({**given, **options}, "options")
    epochs: list[EpochResult] = []
    from cifar_mlflow.jobs.train import train as job

    with called(tracking_uri, progress, _each(epochs, callback)):
        outcome = job(resolved, experiment=experiment, run_name=run_name, offline=offline)
    return _run(outcome, epochs)


def resume(
    run_id: str,
    *,
    tracking_uri: str | Path | None = None,
    callback: Callable[[EpochResult], object] | None = None,
    progress: bool | None = None,
) -> Run | None:
    """Goes on with a run that broke off, from its last checkpoint; None if only writes were left to deliver.

    Raises:
        ModelError: there is no such run, or it cannot be taken up.
        CifarMlflowError: as `train`.
    """
    epochs: list[EpochResult] = []
    from cifar_mlflow.jobs.resume import resume as job

    with called(tracking_uri, progress, _each(epochs, callback)):
        outcome = job(run_id)
    return _run(outcome, epochs) if outcome else None


def sweep(
    spec: SweepConfig | Mapping[str, Any] | str | Path,
    *,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Runs a sweep, or what is left of it; `spec` is a YAML file or what would stand in one.

    Its workers import the caller's main module anew, as `multiprocessing` does: in a script, call this under
    `if __name__ == "__main__":`.

    Raises:
        ConfigurationError: with all faults of the spec, or of what changed since it was run before.
        TrackingError: the store cannot be used, or the sweep is being run elsewhere.
        TrainingError: all its runs failed.
    """
    if isinstance(spec, str | Path):
        spec = load_spec(spec)
    elif not isinstance(spec, SweepConfig):
        spec = parse_spec(spec, Path.cwd())
    from cifar_mlflow.jobs.sweep import sweep as job
    from cifar_mlflow.jobs.sweeping.report import SweepOutcome

    with called(tracking_uri, progress):
        outcome = job(spec)
    assert isinstance(outcome, SweepOutcome)  # it is no part
    return Sweep(
        id=outcome.run_id,
        url=outcome.leaderboard,
        experiment=outcome.experiment,
        runs=outcome.runs,
        failed=outcome.failed,
        pruned=outcome.pruned,
        left=outcome.left,
        comparison=Comparison(outcome.comparison, spec.name),
        winner=outcome.winner,
    )


def reproduce(
    what: str, *, tracking_uri: str | Path | None = None, progress: bool | None = None, **options: Any
) -> ReproduceOutcome:
    """Trains a recorded run again and compares every metric of every epoch; look at the result's `reproduced`.

    `options` are `changes` (threads, precision or data_dir, to be set by hand) and `tolerance`.

    Raises:
        CifarMlflowError: as in `jobs.reproduce.reproduce`.
    """
    from cifar_mlflow.jobs.reproduce import reproduce as job

    with called(tracking_uri, progress):
        return job(what, **options)


def _each(epochs: list[EpochResult], callback: Callable[[EpochResult], object] | None) -> Callable[[EpochResult], None]:
    def heard(result: EpochResult) -> None:
        epochs.append(result)
        if callback is not None:
            callback(result)

    return heard


def _run(outcome: TrainOutcome, epochs: Sequence[EpochResult]) -> Run:
    return Run(
        id=outcome.run_id,
        name=outcome.run_name,
        url=outcome.url,
        config=outcome.config,
        experiment=outcome.experiment,
        held_out=outcome.held_out,
        final_accuracy=outcome.final_accuracy,
        best_accuracy=outcome.best_accuracy,
        best_epoch=outcome.best_epoch,
        waiting=outcome.waiting,
        epochs=tuple(epochs),
    )
