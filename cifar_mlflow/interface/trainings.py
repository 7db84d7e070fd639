"""Trainings from Python: one, the rest of one, many, one again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import SweepConfig, load_spec, parse_spec
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.interface.call import called, checked, plain, refused
from cifar_mlflow.interface.results import Comparison, Run, Sweep, name_of
from cifar_mlflow.text import NAME_LIMIT, fault

if TYPE_CHECKING:
    from cifar_mlflow.jobs.reproduce import ReproduceOutcome
    from cifar_mlflow.jobs.sweeping.report import PartOutcome
    from cifar_mlflow.jobs.train import TrainOutcome
    from cifar_mlflow.learning.training import EpochResult

Configuration = TrainingConfig | Mapping[str, Any] | str | Path
Spec = SweepConfig | Mapping[str, Any] | str | Path


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

    >>> run = cm.train(dataset="digits", epochs=1, scheduler="none")
    >>> run.name
    'digits-prelu-adam-seed0'

    Raises:
        ConfigurationError: with all faults of the configuration.
        DataError: the dataset is missing or damaged.
        TrackingError: the store cannot be used.
        TrainingError: training cannot go on.
    """
    if not isinstance(config, TrainingConfig | Mapping | str | Path | None):
        raise refused("config", config, "it must be a TrainingConfig, a mapping or a YAML file")
    for name, text in (("experiment", experiment), ("run_name", run_name)):
        if isinstance(text, str) and (told := fault(text, NAME_LIMIT) or ("" if text.strip() else "it is empty")):
            raise refused(name, text, told)
    if isinstance(config, TrainingConfig):
        config = config.model_dump(exclude_unset=True)
    given = read_yaml(config) if isinstance(config, str | Path) else dict(config or {})
    resolved = resolve({str(name): plain(value) for name, value in {**given, **options}.items()}, "options")
    epochs: list[EpochResult] = []
    from cifar_mlflow.jobs.train import train as job

    with called(tracking_uri, progress, _each(epochs, callback)):
        outcome = checked(job)(resolved, experiment=experiment, run_name=run_name, offline=offline)
    return _run(outcome, epochs)


def resume(
    run_id: str | Run,
    *,
    tracking_uri: str | Path | None = None,
    callback: Callable[[EpochResult], object] | None = None,
    progress: bool | None = None,
) -> Run | None:
    """Goes on with a run that broke off, from its last checkpoint; None if only writes were left to deliver.

    `run_id` may also be a beginning of the id, or the run's name.

    >>> rest = cm.resume(broken_off)  # of two epochs, after the first
    >>> list(rest.history.index)
    [2]

    Raises:
        ModelError: there is no such run, or it cannot be taken up.
        CifarMlflowError: as `train`.
    """
    epochs: list[EpochResult] = []
    from cifar_mlflow.jobs.resume import resume as job

    with called(tracking_uri, progress, _each(epochs, callback)):
        outcome = checked(job)(name_of(run_id))
    return _run(outcome, epochs) if outcome else None


@overload
def sweep(
    spec: Spec,
    *,
    report: bool = False,
    executor: Literal["process", "ray"] = "process",
    ray_address: str | None = None,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> Sweep: ...


@overload
def sweep(
    spec: Spec,
    *,
    part: str | None = None,
    take_over: Sequence[int] = (),
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> Sweep | PartOutcome: ...


def sweep(
    spec: Spec,
    *,
    part: str | None = None,
    take_over: Sequence[int] = (),
    report: bool = False,
    executor: Literal["process", "ray"] = "process",
    ray_address: str | None = None,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> Sweep | PartOutcome:
    """Runs a sweep, or what is left of it; `spec` is a YAML file or what would stand in one.

    Processes anywhere may share it: each runs a `part`, "1/4" to "4/4", and those that it is to `take_over` from others
    that are gone. What such a call returns says what is lacking; the one that ends last returns the sweep, and so does
    `report`, which trains nothing. With the `executor` ray, the nodes of the Ray cluster at `ray_address` train, else
    processes of this machine.

    Its workers import the caller's main module anew, as `multiprocessing` does: in a script, call this under
    `if __name__ == "__main__":`.

    >>> base = {"dataset": "digits", "epochs": 1, "scheduler": "none"}
    >>> done = cm.sweep({"name": "two", "base": base, "space": {"activation": ["relu", "gelu"]}, "workers": 1})
    >>> sorted(done.table["parameter:activation"])
    ['gelu', 'relu']

    Raises:
        ConfigurationError: with all faults of the spec, or of what changed since it was run before.
        TrackingError: the store cannot be used, or the sweep, or the part, is being run elsewhere.
        TrainingError: all its runs failed.
        ModelError: there is nothing to `report`, or not all of it.
    """
    if isinstance(spec, str | Path):
        spec = load_spec(spec)
    elif not isinstance(spec, SweepConfig | Mapping):
        raise refused("spec", spec, "it must be a mapping or a YAML file")
    elif not isinstance(spec, SweepConfig):
        spec = parse_spec(spec, Path.cwd())
    from cifar_mlflow.jobs.sweep import sweep as job
    from cifar_mlflow.jobs.sweeping.report import SweepOutcome

    which = {"part": part, "take_over": take_over, "report": report}
    with called(tracking_uri, progress):
        outcome = checked(job)(spec, **which, executor=executor, ray_address=ray_address)
    if isinstance(outcome, SweepOutcome):
        return Sweep(outcome, Comparison(outcome.comparison, spec.name))
    return outcome


def reproduce(
    what: str | Run,
    *,
    threads: int | str | None = None,
    precision: str | None = None,
    data_dir: str | Path | None = None,
    tolerance: float = 0.001,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> ReproduceOutcome:
    """Trains a recorded run again and compares every metric of every epoch; look at the result's `reproduced`.

    `what` is a run, or NAME@ALIAS or models:/NAME/VERSION for its; `threads`, `precision` and `data_dir` are the
    original's unless they are given. a and b are equal if |a - b| <= tolerance * max(1, |a|).

    >>> cm.reproduce(run).reproduced
    True

    Raises:
        CifarMlflowError: as in `jobs.reproduce.reproduce`.
    """
    from cifar_mlflow.jobs.reproduce import reproduce as job

    with called(tracking_uri, progress):
        given = {"threads": threads, "precision": precision, "data_dir": data_dir}
        changes = {name: plain(value) for name, value in given.items() if value is not None}
        resolve(changes, "arguments")
        return checked(job)(name_of(what), changes=changes, tolerance=tolerance)


def _each(epochs: list[EpochResult], callback: Callable[[EpochResult], object] | None) -> Callable[[EpochResult], None]:
    if not (callback is None or callable(callback)):
        raise refused("callback", callback, "it must be a function")

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
