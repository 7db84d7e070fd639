"""download, check, sync and doctor: the data, the tracking store, and what earlier processes have left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cifar_mlflow.errors import NotInOrder, TrackingError
from cifar_mlflow.tables import table
from cifar_mlflow.text import count

if TYPE_CHECKING:
    from cifar_mlflow.jobs.doctor import Report

WIDTH = 110


@click.command()
@click.option("--data-dir", metavar="PATH", default="auto", help="directory that should hold CIFAR-10  [as in train]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="longest silence of the server",
)
def download(data_dir: str, timeout: float) -> None:
    """Find CIFAR-10, or download it to the user's cache, and print where it is."""
    from cifar_mlflow.jobs.setup import download as job

    click.echo(job(data_dir, timeout))


@click.command()
def check() -> None:
    """Check that the tracking store answers, and say where it is."""
    from cifar_mlflow.jobs.setup import check as job

    click.echo(f"tracking to {job()}")


@click.command()
@click.option(
    "--to-this-store", is_flag=True, help="also deliver runs of another store: they are made anew in this one"
)
def sync(to_this_store: bool) -> None:
    """Deliver to the tracking store what was recorded while it could not be reached, or with train --offline.

    May be repeated as often as wanted: nothing is written twice. A run that was begun in another store than the one
    that MLFLOW_TRACKING_URI names waits, and so does what the store refuses. Exit code 4 if something still waits.
    """
    from cifar_mlflow.jobs import sync as job

    outcome = job.sync(to_this_store=to_this_store)
    for name in outcome.delivered:
        click.echo(f"delivered {name}")
    job.tell(outcome)
    if left := outcome.waiting | {name: reasons[0] for name, reasons in outcome.refused.items()}:
        name, reason = next(iter(left.items()))
        wait = "1 run still waits" if len(left) == 1 else f"{len(left)} runs still wait"
        raise TrackingError(f"{wait}; {name}: {reason}")
    if not outcome.delivered:
        click.echo("nothing waits to be delivered")


@click.command()
@click.option("--fix", is_flag=True, help="put right what is safe to put right")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(fix: bool, form: str) -> None:
    """Look at everything around the runs, and say what is not in order and what to do.

    The store, runs of processes that are gone, what waits to be delivered, checkpoints, models and aliases, the data,
    packages, room on the disks. Nothing is changed without --fix, which delivers what waits, closes runs of dead
    processes of this machine, repairs aliases, and removes what is of no more use. Exit code 9 if anything is left.
    """
    from cifar_mlflow.jobs.doctor import doctor as job

    report = job(fix=fix)
    click.echo(report.as_json() if form == "json" else _table(report))
    if report.left:
        fixable = not fix and any(result.finding.fix for result in report.results if result.is_open)
        hint = "; `cifar-mlflow doctor --fix` puts right what is safe" if fixable else ""
        raise NotInOrder(f"{count(report.left, 'finding')} to see to{hint}")


def _table(report: Report) -> str:
    """What is in order, check by check; then each finding, with what to do or what was done below it."""
    rows = [("ok", name, text) for name, text in report.well.items()]
    for result in report.results:
        finding = result.finding
        rows.append(("fixed" if result.fixed else finding.severity, result.check, finding.text))
        if result.outcome:
            rows.append(("", "", f"{'done' if result.fixed else 'not fixed'}: {result.outcome}"))
        elif finding.remedy:
            rows.append(("", "", f"do: {finding.remedy}"))
    return table(rows, "lll", wrap=WIDTH - 22)
