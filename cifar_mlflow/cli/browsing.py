"""list, ui and data: what there is, in the terminal and in a browser, and in a folder of images."""

import json
import os
import webbrowser
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import click

from cifar_mlflow.cli.options import choice, completed
from cifar_mlflow.cli.output import file_to
from cifar_mlflow.errors import ConfigurationError, DataError
from cifar_mlflow.tables import csv_lines, table
from cifar_mlflow.text import count as counted

SHORT_ID = 8  # digits of a run's id in a table: enough for any command to find it among millions


@click.command("list")
@click.option("--experiment", metavar="NAME", help="only of this MLflow experiment")
@click.option(
    "--count", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="at most so many"
)
@choice("--format", "form", values=("table", "csv", "json"))
def list_runs(experiment: str | None, count: int, form: str) -> None:
    """List the latest runs and sweeps, the newest first; a sweep stands for its runs.

    The accuracy (per cent) is the validation's after the last epoch; of runs that hold nothing out, the test set's.
    Of a sweep they are its winner's. A run has died if it says RUNNING and its process on this machine is gone; how
    to go on is told. Any command that wants a run takes what stands under run or name; json and csv have whole ids.
    """
    from cifar_mlflow.jobs.browsing.runs import FIRST_RUN, latest, place
    from cifar_mlflow.records import RunSummary

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
        click.echo(f"no run yet in {place()}; this makes one: {FIRST_RUN}")
        return
    lines = []
    for run in found:
        scores = ["-" if value is None else f"{value:.2f}" for value in (run.accuracy, run.test_accuracy)]
        started = f"{run.started:%Y-%m-%d %H:%M}" if run.started else "-"
        minutes = "-" if run.minutes is None else f"{run.minutes:.1f}"
        lines.append(
            (run.run_id[:SHORT_ID], run.name, run.kind, run.experiment, run.status.lower(), *scores, started, minutes)
        )
    headings = ("run", "name", "kind", "experiment", "status", "accuracy", "test", "started (UTC)", "minutes")
    click.echo(table(lines, "lllllrrlr", headings))
    for run in found:
        if run.go_on:
            click.echo(f"{run.name} died, its process is gone; to go on: {run.go_on}", err=True)


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, metavar="N")
@click.option("--no-browser", is_flag=True, help="print the address, and open nothing")
def ui(port: int, no_browser: bool) -> None:
    """Show the runs in MLflow's own pages, at the leaderboard of the latest experiment; Ctrl-C ends it.

    Nobody but this machine can reach the pages. Where MLFLOW_TRACKING_URI is a server, its own pages are opened.
    """
    from cifar_mlflow.jobs.browsing.server import serving, wait

    with serving(port) as (address, server):
        click.echo(address)
        if not no_browser:
            webbrowser.open(address)
        if server is not None:
            click.echo("Ctrl-C ends it", err=True)
            with suppress(KeyboardInterrupt):
                wait(server)


@click.command()
@click.argument("directory", metavar="DIR", shell_complete=completed())
@click.option("--image-size", metavar="VALUE", help="as in train  [auto]")
@click.option("--test-size", metavar="VALUE", help="as in train  [auto]")
@click.option("--validation-size", metavar="VALUE", help="as in train  [auto]")
@click.option("--split-seed", metavar="N", help="as in train  [0]")
@choice("--format", "form", values=("table", "json", "csv"))
@click.option("--contact-sheet", metavar="FILE", help="PNG file to write with images of each class")
def data(directory: str, form: str, contact_sheet: str | None, **options: str | None) -> None:
    """Tell what is in DIR, a folder of images in a folder for each class, without training on it.

    DIR/train/CLASS/*, DIR/test/CLASS/* and DIR/val/CLASS/*, or DIR/CLASS/* alone. Told are the images of each class
    and part, their sizes, images that are there twice or nearly so, and all that is wrong. Exit code 3 if train would
    refuse the folder.
    """
    from cifar_mlflow.jobs.browsing import data as job

    given = {name: value for name, value in options.items() if value is not None}
    if contact_sheet is not None and _lies_in(contact_sheet, directory):
        told = f"--contact-sheet: {contact_sheet} would be a file of {directory} itself; give another place"
        raise ConfigurationError(told, "options")
    # First: what cannot be written is told before anything is read.
    with nullcontext() if contact_sheet is None else file_to("--contact-sheet", contact_sheet) as write:
        outcome = job.data(directory, given, contact_sheet=contact_sheet is not None)
        if write and outcome.contact_sheet:
            write(outcome.contact_sheet)
    if form == "json":
        click.echo(json.dumps(outcome.document(), indent=2))
    elif form == "csv":
        click.echo(csv_lines([job.PER_CLASS, *(row.values() for row in outcome.classes)]), nl=False)
    else:
        click.echo(job.as_text(outcome))
    if outcome.faults:
        raise DataError(f"{outcome.directory}: {counted(len(outcome.faults), 'fault')} to see to")


def _lies_in(path: str, directory: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))
