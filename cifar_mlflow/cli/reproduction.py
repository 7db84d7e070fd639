"""reproduce: a recorded training once more."""

import json
import math

import click

from cifar_mlflow.cli.options import beside_others, choice
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError, NotReproduced


@click.command()
@click.argument("run", required=False)
@click.option("--of-version", metavar="MODEL", help="the run of a registered model: NAME@ALIAS or models:/NAME/VERSION")
@click.option("--threads", metavar="VALUE", help="processor threads  [as in the original]")
@click.option("--precision", metavar="auto|float32|bfloat16", help="arithmetic  [as in the original]")
@click.option(
    "--data-dir", metavar="VALUE", help="where the data are now: a directory, or the .npz file  [as recorded]"
)
@click.option(
    "--tolerance",
    type=float,
    default=0.001,
    show_default=True,
    metavar="X",
    help="a and b are equal if |a - b| <= X * max(1, |a|); 0 demands the same bits",
)
@choice("--format", "form", values=("table", "json"))
@click.option("--print-command", is_flag=True, help="train nothing; print a command that trains the run from a clone")
@beside_others
def reproduce(
    run: str | None,
    of_version: str | None,
    tolerance: float,
    form: str,
    print_command: bool,
    wait: bool,
    system_metrics: bool,
    **changes: str | None,
) -> None:
    """Train the run RUN (its id, a beginning of it, or its name) again and compare every metric of every epoch.

    The new run has the original's configuration, seed, threads and precision and stands in its experiment; what is
    different on this machine is said first. The exit code is 8 if a number differs by more than the tolerance.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    what = run or of_version
    if not what or (run and of_version):
        raise ConfigurationError("give a RUN or --of-version, one of the two", "options")
    if not 0 <= tolerance < math.inf:
        raise ConfigurationError(f"--tolerance: {tolerance} is refused: must be a number, 0 or more", "options")
    if print_command and (wait or system_metrics):
        option = "--wait" if wait else "--system-metrics"
        raise ConfigurationError(f"{option}: --print-command trains nothing", "options")
    resolve(given, "options")
    from cifar_mlflow.jobs import reproduce as job

    if print_command:
        click.echo(job.training_command(what, changes=given))
        return
    beside = {"wait": wait, "system_metrics": system_metrics}
    outcome = job.reproduce(what, changes=given, tolerance=tolerance, **beside)
    if form == "json":
        click.echo(json.dumps(outcome.document(), indent=2, allow_nan=False))
    else:
        click.echo(outcome.comparison.table())
        click.echo(f"run       {outcome.run_id} ({outcome.run_name}), reproduces {outcome.reproduces}")
        click.echo(f"see it    {outcome.url or 'cifar-mlflow ui'}")
        click.echo(outcome.comparison.summary)
    if not outcome.reproduced:
        what = f"the run {outcome.reproduces} was not reproduced by {outcome.run_id}"
        raise NotReproduced(f"{what}; {outcome.explanation()}")
