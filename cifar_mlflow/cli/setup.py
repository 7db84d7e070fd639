"""download, check and sync: the data and the tracking store."""

from __future__ import annotations

import click

from cifar_mlflow.errors import TrackingError


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
    from cifar_mlflow.jobs.download import download as job

    click.echo(job(data_dir, timeout))


@click.command()
def check() -> None:
    """Check that the tracking store answers, and say where it is."""
    from cifar_mlflow.jobs.check import check as job

    click.echo(f"tracking to {job()}")


@click.command()
def sync() -> None:
    """Deliver to the tracking store what was recorded while it could not be reached, or with train --offline.

    May be repeated as often as wanted: nothing is written twice. Exit code 4 if something still waits.
    """
    from cifar_mlflow.jobs import sync as job

    outcome = job.sync()
    for name in outcome.delivered:
        click.echo(f"delivered {name}")
    job.tell(outcome)
    if outcome.waiting:
        name, reason = next(iter(outcome.waiting.items()))
        raise TrackingError(f"{len(outcome.waiting)} runs still wait; {name}: {reason}")
    if not outcome.delivered:
        click.echo("nothing waits to be delivered")
