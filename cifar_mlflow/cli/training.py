"""train: every field of the configuration is an option."""

from __future__ import annotations

import math
import os
from typing import Any

import click

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.errors import ConfigurationError, TrackingError
from cifar_mlflow.text import NAME_LIMIT, as_option, fault, shown


def _config_options(command: Any) -> Any:
    """One option for each field of the training configuration; values are checked together, not one by one."""
    schema = TrainingConfig.model_json_schema()["properties"]
    for name, field in reversed(TrainingConfig.model_fields.items()):
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            metavar=_metavar(schema[name]),
            help=f"{field.description}  [{as_option(field.default)}]",
        )(command)
    return command


def _metavar(annotation: dict[str, Any]) -> str:
    """What stands for the value in the help, from the field's JSON schema."""
    if choices := annotation.get("enum") or ([annotation["const"]] if "const" in annotation else None):
        return "|".join(choices)
    return {"integer": "N", "number": "X", "boolean": "true|false"}.get(annotation.get("type", ""), "VALUE")


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--config", "config_file", metavar="FILE", help="YAML file of options; those given here win")
@click.option("--experiment", metavar="NAME", help="MLflow experiment  [the dataset's name]")
@click.option("--run-name", metavar="NAME", help="name of the run  [from the configuration]")
@click.option("--resume", metavar="RUN_ID", help="go on with a run that broke off, with its own configuration")
@click.option("--offline", is_flag=True, help="ask for no tracking store; `cifar-mlflow sync` delivers the run later")
@_config_options
@click.pass_context
def train(
    context: click.Context,
    /,
    config_file: str | None,
    experiment: str | None,
    run_name: str | None,
    resume: str | None,
    offline: bool,
    **options: str | None,
) -> None:
    """Train one network and record everything about it in MLflow.

    Every option is also a key of the YAML file (with _ for -) and a parameter of `mlflow run . -P KEY=VALUE`.
    A run that breaks off says how to go on from its last checkpoint; --resume needs no other option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    from_file = {} if config_file is None else read_yaml(config_file)
    unknown, stray = _leftovers(context.args)
    names = {"--experiment": experiment, "--run-name": run_name}
    stray += [f"{option}: must not be empty" for option, name in names.items() if name is not None and not name.strip()]
    stray += [
        f"{option}: {shown(name)} is refused: {told}"
        for option, name in names.items()
        if name is not None and (told := fault(name, NAME_LIMIT))
    ]
    values, source = {**from_file, **given, **unknown}, f"options and {config_file}" if config_file else "options"
    if offline and resume is not None:
        stray.append("--offline: --resume needs the tracking store that has the run")
    if resume is not None:
        if stray:
            raise ConfigurationError(stray, source)
        from cifar_mlflow.jobs.resume import resume as resume_job

        continued = resume_job(resume, values, experiment=experiment, run_name=run_name)
        if continued is None:
            click.echo(f"done: the training of {resume} had ended, and now all of it is in the tracking store")
            return
        outcome = continued
    else:
        try:
            config = resolve(values, source)
        except ConfigurationError as error:
            raise ConfigurationError([*error.faults, *stray], error.source) from None
        if stray:
            raise ConfigurationError(stray, "options")
        if offline and os.environ.get("MLFLOW_RUN_ID"):
            raise ConfigurationError("--offline: `mlflow run` has made a run on the tracking store already", "options")
        from cifar_mlflow.jobs.train import train as job

        outcome = job(config, experiment=experiment, run_name=run_name, offline=offline)
    scored = not math.isnan(outcome.final_accuracy)
    accuracy = f"{outcome.final_accuracy:.2f}% {outcome.held_out}" if scored else "not scored yet"
    best = f", best {outcome.best_accuracy:.2f}% at epoch {outcome.best_epoch}" if outcome.held_out != "test" else ""
    click.echo(f"run       {outcome.run_id} ({outcome.run_name})")
    click.echo(
        f"accuracy  {outcome.final_accuracy:.2f}% {outcome.held_out}{best}" if scored else "accuracy  not scored yet"
    )
    if outcome.waiting:
        click.echo(f"kept in   {outcome.spool}")
        if not offline:
            raise TrackingError(
                f"the training is done, but {outcome.waiting} writes wait for the tracking store; they are safe on "
                "disk, and `cifar-mlflow sync` delivers them"
            )
        click.echo("deliver   cifar-mlflow sync")
    else:
        click.echo(f"see it    {outcome.url or 'mlflow ui, then http://127.0.0.1:5000'}")
        click.echo(f"evaluate  cifar-mlflow evaluate {outcome.run_id}")
    accuracy = f"{outcome.held_out} accuracy {outcome.final_accuracy:.2f}%" if scored else accuracy
    click.echo(f"done: {outcome.dataset}, {accuracy}")


def _leftovers(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options that the command does not know, to be refused with the rest, and words that belong to none."""
    unknown: dict[str, str] = {}
    stray = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("-"):
            stray.append(f"{word!r}: every value needs an option before it")
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and position < len(words) and not words[position].startswith("--"):
            value = words[position]
            position += 1
        unknown[name.replace("-", "_")] = value
    return unknown, stray
