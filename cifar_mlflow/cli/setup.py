"""download and check: what a first run needs."""

from __future__ import annotations

import click


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
