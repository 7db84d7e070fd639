"""Compare runs: which configurations the evidence tells apart, and which it does not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.analysis.comparison import formats, report, verdicts
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.jobs.listener import warn
from cifar_mlflow.records import RunRecord
from cifar_mlflow.text import count
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import evaluations, runs, selection, status
from cifar_mlflow.tracking.writing.recorder import mark_job

MOST_SINGLE_RUNS = 20  # that are paired image by image; the pairs of more would be too many to read


@process_state.preserved()
def compare(
    what: Sequence[str],
    *,
    condition: str | None = None,
    objective: str = "final_val_accuracy",
    difference: float | None = None,
    with_test: bool = False,
    reported: str | Path | None = None,
    with_curves: bool = False,
) -> verdicts.Comparison:
    """The comparison of the runs that `what` names (see `tracking.reading.selection.select`).

    `difference` is the smallest one worth finding, in the unit of `objective` (default: see `verdicts.compare`).
    `reported` is a YAML file of published results. `with_curves` also reads the values by epoch, which
    `report.to_html` draws.

    Raises:
        ModelError: there are no such runs.
        TrackingError: the store does not answer.
        ConfigurationError: the objective is measured on the test set or no run has it, or the file cannot be used.
    """
    published = read_reported(reported) if reported else []
    store = tracking_store.connect()
    mark_job(store)
    found = selection.select(store, what, condition)
    ours = [run for run in found if "config_fingerprint" in run.data.tags]
    if other := len(found) - len(ours):
        left_out = "was" if other == 1 else "were"
        warn(f"{count(other, 'run')} {left_out} left out: not recorded by cifar-mlflow, or broken off at once")
    if not ours:
        raise ModelError("no training run is among them, so there is nothing to compare")
    curves = (verdicts.curve_metric(objective), verdicts.REPLICATION_OBJECTIVE) if with_curves else ()
    records = [replace(run, status=status.of(run.status, run.tags)) for run in runs.to_records(store, ours, curves)]
    # A run that broke off and was repeated does not count as missing.
    counted = {record.run_id for record in runs.without_superseded(records)}
    records = [record for record in records if record.status == "FINISHED" or record.run_id in counted]
    judge = partial(
        verdicts.compare, objective=objective, difference=difference, with_test=with_test, reported=published
    )
    result = judge(records)
    single = {row.runs[0].run_id for row in result.rows if len(row.runs) == 1}
    if 2 <= len(single) <= MOST_SINGLE_RUNS:
        paired = [_with_predictions(store, record) if record.run_id in single else record for record in records]
        result = judge(paired)
    return result


def render(result: verdicts.Comparison, form: str, title: str) -> str:
    """The comparison as text: table, csv, json, markdown or html (one self-contained page)."""
    if form == "html":
        return report.to_html(result, title)
    texts = {"table": formats.to_table, "csv": formats.to_csv, "json": formats.to_json, "markdown": formats.to_markdown}
    return texts[form](result)


def read_reported(path: str | Path) -> list[Mapping[str, object]]:
    """Published results: the rows under `results`, with parameters and `accuracy`; else ConfigurationError."""
    values = read_yaml(path)
    rows = values.get("results")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        wanted = "it must hold a list `results`, each entry with parameters and `accuracy: [76.5]`"
        raise ConfigurationError(wanted, f"file {path}")
    return [{**values.get("common", {}), **row} for row in rows]


def _with_predictions(store: tracking_store.Store, record: RunRecord) -> RunRecord:
    try:
        return replace(record, predictions=evaluations.read_validation(store, record.run_id))
    except ModelError as error:
        warn(f"{error}; it is compared without them")
        return record
