"""list and ui: what there is, in the terminal and in a browser."""

import json
import webbrowser
from contextlib import suppress
from dataclasses import asdict

import click

from cifar_mlflow.cli.options import choice
from cifar_mlflow.tables import csv_lines, table


@click.command("list")
@click.option("--experiment", metavar="NAME", help="only of this MLflow experiment")
@click.option(
    "--count", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="at most so many"
)
@choice("--format", "form", values=("table", "csv", "json"))
def list_runs(experiment: str | None, count: int, form: str) -> None:
    """List the latest runs and sweeps, the newest first; a sweep stands for its runs.

    The accuracy (per cent) is the validation's after the last epoch; of runs that hold nothing out, the test set's.
    """
    from cifar_mlflow.jobs.browsing.runs import FIRST_RUN, RunSummary, latest

    found = latest(count, experiment)
    if form == "json":
        click.echo(json.dumps(list(map(asdict, found)), indent=2, default=lambda moment: moment.isoformat()))
        return
    if form == "csv":
        rows = [
            [each.isoformat() if name == "started" and each else each for name, each in vars(run).items()]
            for run in found
        ]
        click.echo(csv_lines([RunSummary.__dataclass_fields__, *rows]), nl=False)
        return
    if not found:
        click.echo(f"no run yet; this makes one: {FIRST_RUN}")
        return
    lines = []
    for run in found:
        scores = ["-" if value is None else f"{value:.2f}" for value in (run.accuracy, run.test_accuracy)]
        started = f"{run.started:%Y-%m-%d %H:%M}" if run.started else "-"
        minutes = "-" if run.minutes is None else f"{run.minutes:.1f}"
        lines.append((run.run_id, run.name, run.experiment, run.status.lower(), *scores, started, minutes))
    headings = ("run", "name", "experiment", "status", "accuracy", "test", "started (UTC)", "minutes")
    click.echo(table(lines, "llllrrlr", headings))


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, metavar="N")
@click.option("--no-browser", is_flag=True, help="print the address, and open nothing")
def ui(port: int, no_browser: bool) -> None:
    """Show the runs in MLflow's own pages, at the leaderboard of the latest experiment; Ctrl-C ends it.

    Nobody but this machine can reach the pages. Where MLFLOW_TRACKING_URI is a server, its own pages are opened.
    """
    from cifar_mlflow.jobs.browsing.server import serving

    with serving(port) as (address, server):
        click.echo(address)
        if not no_browser:
            webbrowser.open(address)
        if server is not None:
            click.echo("Ctrl-C ends it", err=True)
            with suppress(KeyboardInterrupt):
                server.wait()
