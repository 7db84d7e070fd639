"""What is done with a logged model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cifar_mlflow.jobs.evaluate import EvaluateOutcome


@click.command()
@click.argument("model")
@click.option(
    "--weights",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="which epoch's weights, if MODEL is a run id",
)
@click.option("--dataset", metavar="PATH", help="score on the test set of another dataset with the same classes")
@click.option("--data-dir", metavar="PATH", help="directory that holds CIFAR-10  [as in train]")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def evaluate(model: str, weights: str, dataset: str | None, data_dir: str | None, form: str) -> None:
    """Score MODEL on the test set; the result is written to the run that trained it.

    MODEL is a run id, models:/NAME/VERSION, models:/NAME@ALIAS or models:/m-...
    """
    from cifar_mlflow.jobs.evaluate import evaluate as job
    from cifar_mlflow.jobs.evaluate import per_class_csv

    outcome = job(model, weights=weights, dataset=dataset, data_dir=data_dir)
    if form == "csv":
        click.echo(per_class_csv(outcome), nl=False)
    elif form == "json":
        summary = {"model": outcome.model_uri, "run_id": outcome.run_id, "dataset": outcome.dataset}
        click.echo(json.dumps({**summary, **outcome.metrics, "classes": outcome.rows()}, indent=2))
    else:
        _print_evaluation(outcome)


def _print_evaluation(outcome: EvaluateOutcome) -> None:
    score, (low, high) = outcome.score, outcome.interval
    width = max(len("class"), *(len(name) for name in outcome.classes))
    click.echo(f"{'class':<{width}}  precision  recall  images")
    for row in outcome.rows():
        cells = [f"{row[key]:.1f}%" if row[key] is not None else "-" for key in ("precision", "recall")]
        click.echo(f"{row['class']:<{width}}  {cells[0]:>9}  {cells[1]:>6}  {row['images']:>6}")
    click.echo(
        f"{outcome.dataset} test accuracy {score.accuracy:.2f}% (95% interval {low:.2f} to {high:.2f}, "
        f"{score.images:,} images), loss {score.loss:.4f}, calibration error {score.calibration_error:.2f}%"
    )
    click.echo(f"written to the run {outcome.run_id}")
