"""Runs: found by id or by a filter, and read back as plain records."""

import json
import re
import shlex
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cifar_mlflow.config.rules import recorded
from cifar_mlflow.config.training import TrainingConfig, parse_logged
from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.records import RunRecord
from cifar_mlflow.tracking import queries
from cifar_mlflow.tracking.reading import metric_curves
from cifar_mlflow.tracking.store import Run, Store, redact, translated_errors
from cifar_mlflow.tracking.writing import looks, system_metrics

RUN_ID = re.compile(r"[0-9a-f]{32}")


def find(store: Store, run_id: str) -> Run:
    """The run; ModelError if there is none."""
    run = queries.find(store.client.get_run, run_id)
    if run is None:
        raise ModelError(not_here("run", run_id, store))
    return run


def find_kept(store: Store, run_id: str) -> Run:
    """The run; ModelError if there is none, or it was deleted: then with how to restore it."""
    run = find(store, run_id)
    if run.info.lifecycle_stage == "deleted":
        experiment = store.client.get_experiment(run.info.experiment_id)
        of_experiment = experiment.lifecycle_stage == "deleted"
        command = (
            f"experiments restore -x {experiment.experiment_id}" if of_experiment else f"runs restore --run-id {run_id}"
        )
        whose = f" with its experiment {experiment.name!r}" if of_experiment else ""
        raise ModelError(f"the run {run_id} was deleted{whose}; restore it by `mlflow {command}`")
    return run


def not_here(kind: str, name: str, store: Store) -> str:
    """Says that the store has no such run or model, and what to look at."""
    return f"there is no {kind} {name} in {redact(store.uri)}; is MLFLOW_TRACKING_URI the store that it was logged to?"


def experiments(store: Store) -> dict[str, str]:
    """Name to id of every experiment that is not deleted."""
    found = queries.search_all(store.client.search_experiments)
    return {experiment.name: experiment.experiment_id for experiment in found}


def search(store: Store, experiment_ids: Collection[str], condition: str) -> list[Run]:
    """All runs of the experiments that are not deleted and meet MLflow's filter `condition`; the oldest first."""
    if not experiment_ids:
        return []
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    return queries.search_all(store.client.search_runs, list(experiment_ids), condition, order_by=order)


def configuration(run: Run) -> TrainingConfig:
    """The configuration that the run's parameters tell; ModelError if they are none of this version."""
    fields = TrainingConfig.model_fields
    known = {name: unquoted(value) for name, value in run.data.params.items() if name in fields}
    try:
        return recorded(known)
    except ConfigurationError as error:
        raise ModelError(f"the parameters of the run {run.info.run_id} are no configuration: {error}") from error


def unquoted(value: str) -> str:
    """A parameter as it was meant: `mlflow run` logs it with the quotation marks that the shell needs."""
    with suppress(ValueError):  # the quotation mark may be the value's own
        if value.startswith("'") and len(words := shlex.split(value)) == 1:
            return words[0]
    return value


def to_records(store: Store, found: Sequence[Run], metrics: Sequence[str] = ()) -> list[RunRecord]:
    """The runs as records, with the values by epoch of those of `metrics` that a run has."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {run.info.run_id: {} for run in found}
    for name in metrics:
        having = [run.info.run_id for run in found if name in run.data.metrics]
        for run_id, points in metric_curves.read(store, having, name).items():
            curves[run_id][name] = points
    return [_to_record(store, run, curves[run.info.run_id]) for run in found]


def _to_record(store: Store, run: Run, curves: dict[str, list[tuple[int, float]]]) -> RunRecord:
    started, ended = run.info.start_time, run.info.end_time
    parameters = {name: unquoted(value) for name, value in run.data.params.items()}
    typed = parse_logged(parameters) if parameters else {}
    seed = typed.get("seed", TrainingConfig.model_fields["seed"].default)
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        seed=seed if isinstance(seed, int) else 0,
        parameters=typed,
        kind=run.data.tags.get("kind", "single"),
        metrics={name: value for name, value in run.data.metrics.items() if not name.startswith(system_metrics.PREFIX)},
        minutes=(ended - started) / 60_000 if started and ended else None,
        start_time=moment(started),
        curves=curves,
        url=store.run_url(run.info.experiment_id, run.info.run_id),
        tags={**run.data.tags, looks.TAG: str(looks.count(run.data.tags))},
        images=_split_sizes(run),
    )


def moment(milliseconds: int | None) -> datetime | None:
    """None where a program has written no time, or one that no calendar has."""
    with suppress(TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(milliseconds / 1000, UTC)  # type: ignore[operator]
    return None


def _split_sizes(run: Run) -> dict[str, int]:
    """What `Recorder.log_dataset` wrote; empty for a run whose dataset another program logged, or none."""
    for each in run.inputs.dataset_inputs if run.inputs else ():
        with suppress(ValueError, TypeError, AttributeError):
            found = {name: size for name, size in json.loads(each.dataset.profile).items() if type(size) is int}
            if found:
                return found
    return {}


def without_superseded(records: Iterable[RunRecord]) -> list[RunRecord]:
    """One record for each configuration, seed and dataset: a run that broke off gives way to its repetition."""
    alike = defaultdict(list)
    for record in records:
        alike[record.tags.get("run_fingerprint", record.run_id)].append(record)
    return [min(group, key=_rank) for group in alike.values()]


def _rank(record: RunRecord) -> float:
    if record.tags.get("pruned") == "true":  # it is KILLED as well, but it is a result
        return 0.5
    return {"FINISHED": 0, "FAILED": 1, "KILLED": 2}.get(record.status, 3)


def read_artifact(store: Store, run_id: str, path: str) -> bytes | None:
    """The content of a run's artifact, or None if it has no such file."""
    with translated_errors(store.uri), tempfile.TemporaryDirectory() as directory:
        if path not in [file.path for file in store.client.list_artifacts(run_id)]:
            return None
        return Path(store.client.download_artifacts(run_id, path, directory)).read_bytes()
