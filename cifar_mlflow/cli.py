"""The command line: turns words into a job's arguments, and errors into one message and an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from cifar_mlflow import __version__
from cifar_mlflow.config import TrainingConfig, as_option, read_yaml, resolve
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError, Interrupted

if TYPE_CHECKING:
    from cifar_mlflow.jobs.evaluate import EvaluateOutcome

CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    # `mlflow run -P learning_rate=0.1` arrives as --learning_rate 0.1.
    "token_normalize_func": lambda word: word.replace("_", "-"),
}


def main() -> None:
    """Runs the command line and exits, with a code from `cifar_mlflow.errors`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CifarMlflowError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (Interrupted, click.Abort, KeyboardInterrupt) as error:
        # click makes an Abort of every KeyboardInterrupt; what it was is the cause.
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        click.echo(str(cause or "") or "stopped", err=True)
        sys.exit(getattr(cause, "exit_code", 130))
    except BrokenPipeError:
        # The reader of our output has left; that is its right, and Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if os.environ.get("CIFAR_MLFLOW_DEBUG"):
            raise
        click.echo(
            f"error: this should not have happened ({type(error).__name__}: {error}). "
            "Set CIFAR_MLFLOW_DEBUG=1 to see where, and report it",
            err=True,
        )
        sys.exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # The wrap-up that follows is short, and must not be cut in two.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, "-V", "--version", prog_name="cifar-mlflow")
def cli() -> None:
    """Run, track, compare and promote image-classification experiments with MLflow.

    Runs are tracked where MLFLOW_TRACKING_URI says, or in ./mlflow.db. Exit codes: 0 done, 1 a fault of this
    program, 2 wrong options, 3 data, 4 tracking store, 5 training cannot go on, 6 model, 130 and 143 interrupted.
    """


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


@cli.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--config", "config_file", metavar="FILE", help="YAML file of options; those given here win")
@click.option("--experiment", metavar="NAME", help="MLflow experiment  [the dataset's name]")
@click.option("--run-name", metavar="NAME", help="name of the run  [from the configuration]")
@_config_options
@click.pass_context
def train(
    context: click.Context,
    /,
    config_file: str | None,
    experiment: str | None,
    run_name: str | None,
    **options: str | None,
) -> None:
    """Train one network and record everything about it in MLflow.

    Every option is also a key of the YAML file (with _ for -) and a parameter of `mlflow run . -P KEY=VALUE`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    from_file = {} if config_file is None else read_yaml(config_file)
    unknown, stray = _leftovers(context.args)
    names = {"--experiment": experiment, "--run-name": run_name}
    stray += [f"{option}: must not be empty" for option, name in names.items() if name is not None and not name.strip()]
    try:
        config = resolve({**from_file, **given, **unknown}, f"options and {config_file}" if config_file else "options")
    except ConfigurationError as error:
        raise ConfigurationError([*error.faults, *stray], error.source) from None
    if stray:
        raise ConfigurationError(stray, "options")
    from cifar_mlflow.jobs.train import train as job

    outcome = job(config, experiment=experiment, run_name=run_name)
    best = f", best {outcome.best_accuracy:.2f}% at epoch {outcome.best_epoch}" if outcome.held_out != "test" else ""
    click.echo(f"run       {outcome.run_id} ({outcome.run_name})")
    click.echo(f"accuracy  {outcome.final_accuracy:.2f}% {outcome.held_out}{best}")
    click.echo(f"see it    {outcome.url or 'mlflow ui, then http://127.0.0.1:5000'}")
    click.echo(f"evaluate  cifar-mlflow evaluate {outcome.run_id}")
    click.echo(f"done: {outcome.dataset}, {outcome.held_out} accuracy {outcome.final_accuracy:.2f}%")


@cli.command()
@click.argument("spec")
def sweep(spec: str) -> None:
    """Run the sweep that the YAML file SPEC describes; started again, it goes on where it was broken off.

    Each configuration is run with several seeds, under one parent run, which ends with the table and the report.
    """
    from cifar_mlflow.sweep_config import load_spec

    checked = load_spec(spec)
    from cifar_mlflow.jobs.compare import render
    from cifar_mlflow.jobs.sweep import sweep as job

    outcome = job(checked)
    click.echo(render(outcome.comparison, "table", checked.name))
    click.echo(f"run       {outcome.run_id} (sweep {checked.name} in the experiment {outcome.experiment})")
    click.echo(f"see it    {outcome.leaderboard}")
    click.echo(f"compare   cifar-mlflow compare {outcome.run_id} --format html --output report.html")
    if outcome.winner:
        click.echo(f"evaluate  cifar-mlflow evaluate {outcome.winner.run_id}")
    if outcome.left:
        click.echo(f"go on     cifar-mlflow sweep {spec}, with a larger budget ({outcome.left} runs are left)")
    runs = "1 run" if outcome.runs == 1 else f"{outcome.runs} runs"
    counts = f"{runs}, {outcome.failed} failed, {outcome.pruned} pruned"
    click.echo(f"done: {counts}; {'winner ' + outcome.winner.text if outcome.winner else 'no winner'}")


@cli.command()
@click.argument("model")
@click.option(
    "--weights",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="which epoch's weights, if MODEL is a run id",
)
@click.option("--dataset", metavar="PATH", help="score on the test set of another dataset with the same classes")
@click.option("--data-dir", metavar="PATH", help="directory that holds CIFAR-10  [as in train]")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def evaluate(model: str, weights: str, dataset: str | None, data_dir: str | None, form: str) -> None:
    """Score MODEL on the test set; the result is written to the run that trained it.

    MODEL is a run id, models:/NAME/VERSION, models:/NAME@ALIAS or models:/m-...
    """
    from cifar_mlflow.jobs.evaluate import evaluate as job
    from cifar_mlflow.jobs.evaluate import per_class_csv

    outcome = job(model, weights=weights, dataset=dataset, data_dir=data_dir)
    if form == "csv":
        click.echo(per_class_csv(outcome), nl=False)
    elif form == "json":
        summary = {"model": outcome.model_uri, "run_id": outcome.run_id, "dataset": outcome.dataset}
        click.echo(json.dumps({**summary, **outcome.metrics, "classes": outcome.rows()}, indent=2))
    else:
        _print_evaluation(outcome)


def _print_evaluation(outcome: EvaluateOutcome) -> None:
    score, (low, high) = outcome.score, outcome.interval
    width = max(len("class"), *(len(name) for name in outcome.classes))
    click.echo(f"{'class':<{width}}  precision  recall  images")
    for row in outcome.rows():
        cells = [f"{row[key]:.1f}%" if row[key] is not None else "-" for key in ("precision", "recall")]
        click.echo(f"{row['class']:<{width}}  {cells[0]:>9}  {cells[1]:>6}  {row['images']:>6}")
    click.echo(
        f"{outcome.dataset} test accuracy {score.accuracy:.2f}% (95% interval {low:.2f} to {high:.2f}, "
        f"{score.images:,} images), loss {score.loss:.4f}, calibration error {score.calibration_error:.2f}%"
    )
    click.echo(f"written to the run {outcome.run_id}")


@cli.command()
@click.argument("what", nargs=-1)
@click.option("--filter", "condition", metavar="FILTER", help="MLflow filter, such as \"params.optimizer = 'adam'\"")
@click.option("--objective", metavar="METRIC", default="final_val_accuracy", show_default=True)
@click.option("--difference", type=float, default=0.5, show_default=True, help="difference worth finding")
@click.option("--with-test", is_flag=True, help="show test accuracy, and how often the test set was consulted")
@click.option("--reported", metavar="FILE", help="YAML file of published results to put beside ours")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "markdown", "html"]),
    default="table",
    show_default=True,
)
@click.option("--output", metavar="FILE", help="file to write to  [standard output]")
def compare(what: tuple[str, ...], condition: str | None, form: str, output: str | None, **options: Any) -> None:
    """Compare WHAT: sweeps or experiments by name, run ids, or all runs that the filter lets through.

    Runs that differ by seed alone are one configuration. The verdict says which ones the evidence tells apart.
    """
    if not what and not condition:
        raise ConfigurationError("name a sweep, an experiment or run ids, or give --filter", "options")
    from cifar_mlflow.jobs.compare import compare as job
    from cifar_mlflow.jobs.compare import render

    result = job(what, condition=condition, with_curves=form == "html", **options)
    text = render(result, form, ", ".join(what) or str(condition))
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--output: {output} cannot be written: {error.strerror}", "options") from None
    click.echo(f"written to {output}", err=True)


@cli.command()
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


@cli.command()
def check() -> None:
    """Check that the tracking store answers, and say where it is."""
    from cifar_mlflow.jobs.check import check as job

    click.echo(f"tracking to {job()}")


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
