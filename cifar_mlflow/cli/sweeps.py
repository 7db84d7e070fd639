"""sweep and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cifar_mlflow.cli.options import beside_others, completed
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import count

if TYPE_CHECKING:
    from cifar_mlflow.jobs.sweeping.report import PartOutcome

FORMATS = click.Choice(["table", "csv", "json", "markdown", "html"])


@click.command()
@click.argument("spec", shell_complete=completed())
@click.option("--part", metavar="I/N", help="run one of N parts of the sweep, which share its parent run")
@click.option("--take-over", type=int, multiple=True, metavar="I", help="run part I too, whose process is gone")
@click.option("--report", is_flag=True, help="train nothing: write table, report and winner, if all is there")
@click.option("--offline", is_flag=True, help="ask for no tracking store (with --part); `cifar-mlflow sync` delivers")
@click.option(
    "--executor",
    type=click.Choice(["process", "ray"]),
    default="process",
    show_default=True,
    help="train in processes here, or on the nodes of a Ray cluster",
)
@click.option("--ray-address", metavar="HOST:PORT", help="the cluster  [$RAY_ADDRESS, else that of this machine]")
@beside_others
def sweep(spec: str, part: str | None, take_over: tuple[int, ...], **beside: Any) -> None:
    """Run the sweep that the YAML file SPEC describes; started again, it goes on where it was broken off.

    Each configuration is run with several seeds, under one parent run, which ends with the table and the report.
    Processes anywhere may each run a part; whichever ends last writes them, or a call with --report.
    """
    from cifar_mlflow.config.sweep import load_spec

    checked = load_spec(spec)
    from cifar_mlflow.jobs.compare import render
    from cifar_mlflow.jobs.sweep import sweep as job
    from cifar_mlflow.jobs.sweeping.report import PartOutcome

    outcome = job(checked, part=part, take_over=take_over, **beside)
    if isinstance(outcome, PartOutcome):
        _tell_part(outcome, spec, checked.name)
        return
    click.echo(render(outcome.comparison, "table", checked.name))
    click.echo(f"run       {outcome.run_id} (sweep {checked.name} in the experiment {outcome.experiment})")
    click.echo(f"see it    {outcome.leaderboard}")
    click.echo(f"compare   cifar-mlflow compare {outcome.run_id} --format html --output report.html")
    if outcome.winner and checked.log_models:
        click.echo(f"evaluate  cifar-mlflow evaluate {outcome.winner.run_id}")
    elif outcome.winner:  # no run has a model; one that does it again has
        kept = "(the sweep has kept none: log_models: false)"
        click.echo(f"model     cifar-mlflow reproduce {outcome.winner.run_id} {kept}")
    if outcome.left:
        click.echo(f"go on     cifar-mlflow sweep {spec}, with a larger budget ({count(outcome.left, 'run')} left)")
    counts = f"{count(outcome.runs, 'run')}, {outcome.failed} failed, {outcome.pruned} pruned"
    click.echo(f"done: {counts}; {'winner ' + outcome.winner.text if outcome.winner else 'no winner'}")


def _tell_part(outcome: PartOutcome, spec: str, name: str) -> None:
    report = f"cifar-mlflow sweep {spec} --report"
    if outcome.run_id is None:
        click.echo(f"kept in   {outcome.spool}")
        click.echo(f"deliver   cifar-mlflow sync, and then {report}")
    else:
        click.echo(f"run       {outcome.run_id} (sweep {name} in the experiment {outcome.experiment})")
        lacks = ", ".join(outcome.lacks) or "nothing, but another part is being run again"
        click.echo(f"lacking   {lacks}")
        click.echo(f"report    by the part that ends last, or: {report}")
    click.echo(f"done: {outcome.parts}, {count(outcome.runs, 'run')}, {outcome.failed} failed")


@click.command()
@click.argument("what", nargs=-1)
@click.option("--filter", "condition", metavar="FILTER", help="MLflow filter, such as \"params.optimizer = 'adam'\"")
@click.option("--objective", metavar="METRIC", default="final_val_accuracy", show_default=True)
@click.option("--difference", type=float, help="difference worth finding  [0.5 points of an accuracy, else none]")
@click.option("--with-test", is_flag=True, help="show test accuracy, and how often the test set was consulted")
@click.option("--reported", metavar="FILE", help="YAML file of published results to put beside ours")
@click.option("--format", "form", type=FORMATS, default="table", show_default=True)
@click.option("--output", metavar="FILE", help="file to write to  [standard output]")
def compare(what: tuple[str, ...], condition: str | None, form: str, output: str | None, **options: Any) -> None:
    """Compare WHAT: sweeps, experiments, runs (as in evaluate), or all runs that the filter lets through.

    Runs that differ by seed alone are one configuration. The verdict says which ones the evidence tells apart.
    """
    if not what and not condition:
        raise ConfigurationError("name sweeps, experiments or runs, or give --filter", "options")
    from cifar_mlflow.cli.output import lines_to
    from cifar_mlflow.jobs.compare import compare as job
    from cifar_mlflow.jobs.compare import render

    # First: what cannot be written is told before anything is read.
    with lines_to(output, filter(None, [options["reported"]])) as write:
        result = job(what, condition=condition, with_curves=form == "html", **options)
        write(render(result, form, ", ".join(what) or str(condition)).rstrip("\n") + "\n")
