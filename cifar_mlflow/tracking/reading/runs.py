"""Runs read back as plain records."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_mlflow.config.training import TrainingConfig, parse_logged
from cifar_mlflow.records import RunRecord
from cifar_mlflow.tracking.reading import metric_curves
from cifar_mlflow.tracking.store import Store, translated_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

PAGE = 1000


def search(store: Store, experiment_ids: Collection[str], condition: str) -> list[Run]:
    """All runs of the experiments, deleted ones apart, that meet MLflow's filter `condition`; the oldest first."""
    found: list[Run] = []
    token = None
    if not experiment_ids:
        return found
    with translated_errors(store.uri):
        while True:
            page = store.client.search_runs(
                list(experiment_ids),
                condition,
                max_results=PAGE,
                order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found


def unquoted(value: str) -> str:
    """A parameter as it was meant: under `mlflow run`, MLflow logs it quoted for the shell where it needs that."""
    if not value.startswith("'"):
        return value
    try:
        words = shlex.split(value)
    except ValueError:  # the quotation mark is the value's own
        return value
    return words[0] if len(words) == 1 else value


def to_records(store: Store, found: Sequence[Run], metrics: Sequence[str] = ()) -> list[RunRecord]:
    """The runs as records, with the values by epoch of those of `metrics` that a run has."""
    values: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name in metrics:
        having = [run.info.run_id for run in found if name in run.data.metrics]
        values[name] = metric_curves.read(store, having, name)
    records = []
    for run in found:
        own = {name: by_run[run.info.run_id] for name, by_run in values.items() if run.info.run_id in by_run}
        records.append(_to_record(store, run, own))
    return records


def _to_record(store: Store, run: Run, by_epoch: dict[str, list[tuple[int, float]]]) -> RunRecord:
    started, ended = run.info.start_time, run.info.end_time
    tags, parameters = run.data.tags, run.data.params
    typed = parse_logged({name: unquoted(value) for name, value in parameters.items()}) if parameters else {}
    seed = typed.get("seed", TrainingConfig.model_fields["seed"].default)
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        seed=seed if isinstance(seed, int) else 0,
        parameters=typed,
        kind=tags.get("kind", "single"),
        metrics=dict(run.data.metrics),
        minutes=(ended - started) / 60_000 if ended else None,
        start_time=datetime.fromtimestamp(started / 1000, UTC),
        curves=by_epoch,
        url=store.run_url(run.info.experiment_id, run.info.run_id),
        tags=dict(tags),
    )


_RANKS = {"FINISHED": 0, "FAILED": 1, "KILLED": 2}


def without_superseded(records: Iterable[RunRecord]) -> list[RunRecord]:
    """One record for each configuration, seed and dataset: a run that was broken off gives way to its repetition."""
    kept: dict[str, RunRecord] = {}
    for record in records:
        key = record.tags.get("run_fingerprint", record.run_id)
        if key not in kept or _rank(record) < _rank(kept[key]):
            kept[key] = record
    return list(kept.values())


def _rank(record: RunRecord) -> float:
    # A run that was pruned is KILLED as well, but it is a result.
    return 0.5 if record.tags.get("pruned") == "true" else _RANKS.get(record.status, 3)


def read_artifact(store: Store, run_id: str, path: str) -> bytes | None:
    """The content of a run's artifact, or None if it has no such file."""
    with translated_errors(store.uri), tempfile.TemporaryDirectory() as directory:
        if path not in [file.path for file in store.client.list_artifacts(run_id)]:
            return None
        return Path(store.client.download_artifacts(run_id, path, directory)).read_bytes()
