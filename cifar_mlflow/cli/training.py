"""train: every field of the configuration is an option."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import click

from cifar_mlflow.cli.options import (
    TrainCommand,
    beside_others,
    completed,
    configuration_options,
    name_faults,
    unknown_options,
)
from cifar_mlflow.config.rules import faults_of, resolve, without_defaults
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.errors import ConfigurationError, TrackingError
from cifar_mlflow.jobs.listener import warn
from cifar_mlflow.text import count

if TYPE_CHECKING:
    from cifar_mlflow.jobs.train import TrainOutcome


@click.command(cls=TrainCommand, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="YAML file of options; those given here win",
    shell_complete=completed(),
)
@click.option("--experiment", metavar="NAME", help="MLflow experiment  [the dataset's name]")
@click.option("--run-name", metavar="NAME", help="name of the run  [from the configuration]")
@click.option("--resume", metavar="RUN", help="go on with a run that broke off, with its own configuration")
@click.option("--offline", is_flag=True, help="ask for no tracking store; `cifar-mlflow sync` delivers the run later")
@beside_others
@configuration_options
@click.pass_context
def train(
    context: click.Context,
    /,
    config_file: str | None,
    experiment: str | None,
    run_name: str | None,
    resume: str | None,
    offline: bool,
    wait: bool,
    system_metrics: bool,
    **options: str | None,
) -> None:
    """Train one network and record everything about it in MLflow.

    Every option is also a key of the YAML file (with _ for -) and a parameter of `mlflow run . -P KEY=VALUE`.
    A run that breaks off says how to go on from its last checkpoint; --resume needs no other option, but for --data-dir
    if its data were moved.
    """
    unknown, faults = unknown_options(context.args)
    given = {name: value for name, value in options.items() if value is not None}
    of_file = {} if config_file is None else read_yaml(config_file)
    if "space" in of_file:
        raise ConfigurationError(
            f"this is the spec of a sweep: cifar-mlflow sweep {config_file}", f"file {config_file}"
        )
    values = of_file | given | unknown
    faults += name_faults({"--experiment": experiment, "--run-name": run_name})
    if of_file and of_file.keys() <= given.keys() and resume is None:
        told = f"--config: {config_file} has no effect: each of its keys is given as an option too"
        if "MLFLOW_RUN_ID" in os.environ:  # the entry points main and train give all of them
            faults.append(f"{told}; use -e preset")
        else:
            warn(told)
    if offline and resume is not None:
        faults.append("--offline: --resume needs the tracking store that has the run")
    elif offline and os.environ.get("MLFLOW_RUN_ID"):
        faults.append("--offline: `mlflow run` has made a run on the tracking store already")
    # A run that is resumed has a configuration of its own, against which the job holds the values.
    faults = faults if resume is not None else faults_of(values) + faults
    if faults:
        raise ConfigurationError(faults, f"options and {config_file}" if config_file else "options")
    beside = {"wait": wait, "system_metrics": system_metrics}
    if resume is not None:
        from cifar_mlflow.jobs.resume import resume as resume_job

        resumed = resume_job(resume, values, experiment=experiment, run_name=run_name, **beside)
        if resumed is None:
            click.echo(f"done: the training of {resume} had ended, and now all of it is in the tracking store")
            return
        outcome = resumed
    else:
        from cifar_mlflow.jobs.train import train as job

        chosen = without_defaults(values) if "MLFLOW_RUN_ID" in os.environ and not of_file else values
        outcome = job(resolve(chosen), experiment=experiment, run_name=run_name, offline=offline, **beside)
    _tell(outcome, offline)


def _tell(outcome: TrainOutcome, offline: bool) -> None:
    """What the run came to, where it is and what can be done with it.

    Raises:
        TrackingError: some of it waits for the store, though one was asked for.
    """
    scored = not math.isnan(outcome.final_accuracy)
    accuracy = f"{outcome.final_accuracy:.2f}%"
    best = f", best {outcome.best_accuracy:.2f}% at epoch {outcome.best_epoch}" if outcome.held_out != "test" else ""
    best += f", balanced {outcome.balanced_accuracy:.2f}%" if outcome.balanced_accuracy is not None else ""
    click.echo(f"run       {outcome.run_id} ({outcome.run_name})")
    click.echo(f"accuracy  {f'{accuracy} {outcome.held_out}{best}' if scored else 'not scored yet'}")
    if outcome.waiting:
        click.echo(f"kept in   {outcome.spool}")
        if not offline:
            wait = f"{count(outcome.waiting, 'write')} for the tracking store still waiting; all is safe on disk"
            raise TrackingError(f"the training is done, but {wait}, and `cifar-mlflow sync` delivers them")
        click.echo("deliver   cifar-mlflow sync")
    else:
        click.echo(f"see it    {outcome.url or 'cifar-mlflow ui'}")
        click.echo(f"evaluate  cifar-mlflow evaluate {outcome.run_id}")
    click.echo(f"done: {outcome.dataset}, {f'{outcome.held_out} accuracy {accuracy}' if scored else 'not scored yet'}")
