"""promote, rollback and history: what the registry's aliases name, and why."""

import textwrap
from dataclasses import fields
from typing import Any

import click

from cifar_mlflow.cli.options import choice
from cifar_mlflow.errors import PromotionRefused
from cifar_mlflow.records import WEIGHTS
from cifar_mlflow.tables import table

WIDTH = 110
FORM = choice("--format", "form", values=("table", "json"))
ALIAS = click.option("--alias", metavar="ALIAS", default="champion", show_default=True)


@click.command()
@click.argument("model", required=False)
@click.option("--best-of", metavar="SWEEP", help="the winner of a sweep, instead of MODEL")
@choice("--weights", values=WEIGHTS, help="as in evaluate")
@click.option("--name", metavar="NAME", help="registered model  [the dataset's name]")
@ALIAS
@click.option("--min-accuracy", type=float, metavar="PERCENT", help="least test accuracy")
@click.option("--min-class-recall", type=float, metavar="PERCENT", help="least recall of every class")
@choice("--require", values=("not-worse", "better"), help="than the best champion so far, by McNemar's test")
@click.option("--significance", type=float, default=0.05, show_default=True, help="level of that test, or interval")
@click.option("--margin", type=float, metavar="POINTS", help="prove that it is not worse by more than that")
@choice("--on", values=("test", "validation"), help="the images on which models are judged")
@click.option("--dataset", metavar="PATH", help="judge on the test images of another dataset with the same classes")
@click.option("--force", metavar="REASON", help="promote against a gate (not integrity and smoke); shown ever after")
@click.option("--dry-run", is_flag=True, help="judge, and leave the registry as it is")
@click.option("--data-dir", metavar="PATH", help="where the data are now: a directory, or the .npz file  [as recorded]")
@FORM
def promote(form: str, **options: Any) -> None:
    """Register MODEL and move the alias to it, if every gate lets it through.

    MODEL is named as in evaluate. Without a champion the first model needs no comparison.
    Later ones are compared with the best champion so far, on the same images; a tie lets a new model in, unless
    --require better or --margin is given. Exit code 7: refused.
    """
    from cifar_mlflow.jobs.promote import promote as job
    from cifar_mlflow.jobs.promotion.gates import Thresholds
    from cifar_mlflow.jobs.promotion.verdict import PROMOTED

    thresholds = Thresholds(**{field.name: options.pop(field.name) for field in fields(Thresholds)})
    verdict = job(thresholds=thresholds, **options)
    rows = []
    for gate in verdict.gates:
        rows.append((gate.name, gate.outcome, gate.observed))
        if gate.passed is False or gate.name == "champion":
            rows.append(("", "", f"required: {gate.required}"))
    click.echo(verdict.as_json() if form == "json" else table(rows, "lll", wrap=WIDTH - 25))
    if verdict.failed and not verdict.forced:
        raise PromotionRefused(verdict.sentence)
    if form == "table":
        click.echo(verdict.sentence)
        if verdict.status == PROMOTED:
            click.echo(f"use it    cifar-mlflow predict {verdict.name}@{verdict.alias} IMAGE")
            click.echo(
                f"undo      cifar-mlflow rollback {verdict.name}"
                + (f" --alias {verdict.alias}" if verdict.alias != "champion" else "")
            )


@click.command()
@click.argument("name")
@ALIAS
@click.option("--reason", metavar="TEXT", default="", help="why; kept in the history")
def rollback(name: str, alias: str, reason: str) -> None:
    """Let the version that was champion of the registered model NAME before be champion again.

    As often as there is history; exit code 7 if there is nothing before.
    """
    from cifar_mlflow.jobs.rollback import rollback as job

    version, before = job(name, alias=alias, reason=reason)
    replaced = f"version {before}" if before else "no version"
    click.echo(f"{name} version {version} is {alias} again, in place of {replaced}")


@click.command()
@click.argument("name")
@FORM
def history(name: str, form: str) -> None:
    """Print the story of the registered model NAME: versions, verdicts, drift, and the moves of its aliases."""
    from cifar_mlflow.jobs.history import history as job

    story = job(name)
    if form == "json":
        click.echo(story.as_json())
        return
    rows = []
    for each in story.versions:
        accuracy = "-" if each.accuracy is None else f"{each.accuracy:.2f}%"
        rows.append((each.version, ",".join(each.aliases) or "-", accuracy, each.verdict or "-", each.run_id))
    heading, *lines = table(rows, "rlrll", ("version", "alias", "accuracy", "verdict", "run")).split("\n")
    click.echo(heading)
    for each, line in zip(story.versions, lines, strict=True):
        click.echo(line)
        if each.reason:
            click.echo(textwrap.fill(each.reason, WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 9))
    if len(story.drift) > 1:
        columns = ("alias", "version", "on", "accuracy", "below the best before")
        rows = [
            (
                each.alias,
                each.version,
                each.on,
                f"{each.accuracy:.2f}%",
                "-" if each.below is None else f"{each.below:.2f} (version {each.best})",
            )
            for each in story.drift
        ]
        click.echo("\ndrift\n" + table(rows, "lrlrl", columns))
    click.echo("\nmoves" if story.moves else "\nno alias was ever moved")
    for move in story.moves:
        click.echo(textwrap.fill(move.sentence, WIDTH, subsequent_indent="  "))
