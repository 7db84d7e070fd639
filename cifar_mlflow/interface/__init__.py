"""The Python interface: each function is a command of the command line, with the same words for what is wrong.

Common to all of them:

- Faults are exceptions of `cifar_mlflow.errors`; warnings are Python's own (`warnings`). Nothing is printed.
- `tracking_uri` is the store; without it, what `mlflow.set_tracking_uri` or MLFLOW_TRACKING_URI says, else ./mlflow.db.
- `progress` shows bars: True, False, or None for on a terminal and in a notebook. Each is one of tqdm's.
- The process is afterwards what it was: its environment, torch's settings, the random states, the signal handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_mlflow import process_state
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import SweepConfig, load_spec, parse_spec
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.interface.results import Comparison, Run, Sweep
from cifar_mlflow.interface.watching import Watching
from cifar_mlflow.jobs.listener import listening

if TYPE_CHECKING:
    import pandas as pd

    from cifar_mlflow.jobs.doctor import Report
    from cifar_mlflow.jobs.evaluate import EvaluateOutcome
    from cifar_mlflow.jobs.history import ModelHistory
    from cifar_mlflow.jobs.promotion.verdict import PromotionVerdict
    from cifar_mlflow.jobs.reproduce import ReproduceOutcome
    from cifar_mlflow.jobs.sync import SyncOutcome
    from cifar_mlflow.jobs.train import TrainOutcome
    from cifar_mlflow.learning.training import EpochResult

Configuration = TrainingConfig | Mapping[str, Any] | str | Path


@contextmanager
def _called(
    tracking_uri: str | Path | None, progress: bool | None, callback: Callable[[EpochResult], object] | None = None
) -> Iterator[None]:
    """The store and the listener of one call."""
    with process_state.preserved(), listening(Watching(progress, callback)):
        if tracking_uri is not None:
            process_state.set_variable("MLFLOW_TRACKING_URI", str(tracking_uri))
        yield


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

    with _called(tracking_uri, progress, _each(epochs, callback)):
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

    with _called(tracking_uri, progress, _each(epochs, callback)):
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

    with _called(tracking_uri, progress):
        outcome = job(spec)
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


def compare(
    *what: str, tracking_uri: str | Path | None = None, progress: bool | None = None, **options: Any
) -> Comparison:
    """Compares the runs that `what` names: sweeps or experiments by name, run ids.

    `options` are those of `cifar-mlflow compare`: condition (its --filter), objective, difference, with_test, reported.

    Raises:
        ModelError: there are no such runs.
        ConfigurationError: the objective is measured on the test set, or no run has it.
        TrackingError: the store cannot be read.
    """
    from cifar_mlflow.jobs.compare import compare as job

    with _called(tracking_uri, progress):
        judged = job(what, with_curves=True, **options)
    return Comparison(judged, ", ".join(what) or str(options.get("condition", "all runs")))


def evaluate(
    model: str, *, tracking_uri: str | Path | None = None, progress: bool | None = None, **options: Any
) -> EvaluateOutcome:
    """Scores a model on the test set, and writes the result to the run that trained it.

    `model` is a run id, models:/NAME/VERSION, NAME@ALIAS or models:/m-...; `options` are weights, dataset, data_dir and
    views.

    Raises:
        ModelError: there is no such model.
        DataError: the data are not those that the model was trained on, or the test set overlaps them.
        TrackingError: the store cannot be used.
    """
    from cifar_mlflow.jobs.evaluate import evaluate as job

    with _called(tracking_uri, progress):
        return job(model, **options)


def promote(
    model: str | None = None, *, tracking_uri: str | Path | None = None, progress: bool | None = None, **options: Any
) -> PromotionVerdict:
    """Registers a model and moves the alias to it, if every gate lets it through; look at the result's `status`.

    `options` are those of `jobs.promote.promote`: best_of, weights, name, alias, thresholds, force, dry_run, data_dir.

    Raises:
        CifarMlflowError: as there.
    """
    from cifar_mlflow.jobs.promote import promote as job

    with _called(tracking_uri, progress):
        return job(model, **options)


def rollback(
    name: str, *, alias: str = "champion", reason: str = "", tracking_uri: str | Path | None = None
) -> tuple[str, str | None]:
    """Moves the alias back; returns the version that holds it now, and the one that did until now.

    Raises:
        PromotionRefused: there is nothing to roll back to.
        CifarMlflowError: as in `jobs.rollback.rollback`.
    """
    from cifar_mlflow.jobs.rollback import rollback as job

    with _called(tracking_uri, progress=False):
        return job(name, alias=alias, reason=reason)


def history(name: str, *, tracking_uri: str | Path | None = None) -> ModelHistory:
    """The versions of a registered model with their verdicts, and the moves of its aliases.

    Raises:
        ModelError: there is no such registered model.
        TrackingError: the store cannot be read.
    """
    from cifar_mlflow.jobs.history import history as job

    with _called(tracking_uri, progress=False):
        return job(name)


def reproduce(
    what: str, *, tracking_uri: str | Path | None = None, progress: bool | None = None, **options: Any
) -> ReproduceOutcome:
    """Trains a recorded run again and compares every metric of every epoch; look at the result's `reproduced`.

    `options` are `changes` (threads, precision or data_dir, to be set by hand) and `tolerance`.

    Raises:
        CifarMlflowError: as in `jobs.reproduce.reproduce`.
    """
    from cifar_mlflow.jobs.reproduce import reproduce as job

    with _called(tracking_uri, progress):
        return job(what, **options)


def sync(*, to_this_store: bool = False, tracking_uri: str | Path | None = None) -> SyncOutcome:
    """Delivers to the store what was recorded while it could not be reached, or offline.

    Raises:
        TrackingError: the store cannot be reached.
    """
    from cifar_mlflow.jobs.sync import sync as job

    with _called(tracking_uri, progress=False):
        return job(to_this_store=to_this_store)


def doctor(*, fix: bool = False, tracking_uri: str | Path | None = None, progress: bool | None = None) -> Report:
    """Looks at everything around the runs; with `fix`, puts right what is safe to put right."""
    from cifar_mlflow.jobs.doctor import doctor as job

    with _called(tracking_uri, progress):
        return job(fix=fix)


def list_runs(
    count: int = 20, *, experiment: str | None = None, tracking_uri: str | Path | None = None
) -> pd.DataFrame:
    """The runs and sweeps that began last, the newest first; accuracies in per cent.

    Raises:
        ModelError: there is no such experiment.
        TrackingError: the store cannot be read.
    """
    import pandas as pd

    from cifar_mlflow.jobs.browsing.runs import RunSummary, latest

    with _called(tracking_uri, progress=False):
        return pd.DataFrame(list(map(vars, latest(count, experiment))), columns=list(RunSummary.__dataclass_fields__))


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
