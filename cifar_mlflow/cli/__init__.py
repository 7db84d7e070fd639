"""The command line: turns words into a job's arguments, and errors into one message and an exit code."""

import os
import sys

import click

from cifar_mlflow import __version__
from cifar_mlflow.cli import browsing, models, registry, reproduction, setup, sweeps, training
from cifar_mlflow.cli.options import Commands
from cifar_mlflow.cli.output import output_fault, prepare_streams
from cifar_mlflow.directories import no_room
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError, Interrupted
from cifar_mlflow.jobs.console import OwnProcess
from cifar_mlflow.jobs.listener import listening
from cifar_mlflow.jobs.training.signals import interrupt_at_signals
from cifar_mlflow.memory import enough_memory
from cifar_mlflow.text import fault, redact, shown

PROGRAM = "cifar-mlflow"  # however it was started, as by `python -m cifar_mlflow`
COMPLETION = "_CIFAR_MLFLOW_COMPLETE"  # by which a shell asks click
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    # `mlflow run -P learning_rate=0.1` arrives as --learning_rate 0.1.
    "token_normalize_func": lambda word: word.replace("_", "-"),
}
# As the help shows them, each in a line that fits.
COMMANDS = {
    "Train": {
        training.train: "Train one network, or go on with a run that broke off.",
        sweeps.sweep: "Train many configurations, each with several seeds.",
        reproduction.reproduce: "Train a run again, and compare every number.",
    },
    "Look": {
        browsing.list_runs: "List the latest runs and sweeps.",
        browsing.ui: "Show them in the browser, in MLflow's pages.",
        sweeps.compare: "Say which configurations can be told apart.",
        browsing.data: "Tell what is in a folder of images.",
        models.mislabelled: "List training images whose labels are likely wrong.",
    },
    "Use a model": {
        models.evaluate: "Score a model on the test set.",
        models.predict: "Say what a model sees in image files.",
        models.calibrate: "Make a model's probabilities honest.",
        models.export: "Write a model as an ONNX file.",
        registry.promote: "Make a model the champion, if it passes every gate.",
        registry.rollback: "Make the champion before the champion again.",
        registry.history: "Tell what became of each version of a model.",
    },
    "Keep in order": {
        setup.doctor: "Say what is not in order, and what to do.",
        setup.sync: "Deliver what was recorded without the tracking store.",
        setup.check: "Say where runs go, and whether that answers.",
        setup.download: "Find CIFAR-10, or download it.",
    },
}


def main() -> None:
    """Runs the command line and exits, with a code from `cifar_mlflow.errors`."""
    prepare_streams()
    interrupt_at_signals()
    try:
        for word in sys.argv[1:]:  # bytes that are no text would fail deep in some library, each time in another one
            if told := fault(word, len(word), allowed="\n\r\t"):
                raise ConfigurationError(f"{shown(word)} is refused: {told}", "command line")
        try:
            os.getcwd()
        except OSError as error:
            gone = f"the current directory is gone ({error.strerror}); go to another"
            raise ConfigurationError(gone, "environment") from None
        with listening(OwnProcess()), enough_memory():
            cli.main(prog_name=PROGRAM, standalone_mode=False)
    except SystemExit as end:
        # So click ends where the reader of our output has left, as `head` does; the shell's code for that is 141.
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
            sys.exit(141)
        if COMPLETION in os.environ:  # so click ends when it has told the shell what may come next
            raise
        click.echo(f"error: code of your own, such as that of --network, has called sys.exit({end.code!r})", err=True)
        sys.exit(1)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
        else:
            click.echo(f"error: {_told(error)}", err=True)
        sys.exit(error.exit_code)
    except CifarMlflowError as error:
        click.echo(f"error: {redact(str(error))}", err=True)
        sys.exit(error.exit_code)
    except (Interrupted, click.Abort, KeyboardInterrupt) as error:
        # click makes an Abort of every KeyboardInterrupt; what it was is the cause.
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        click.echo(str(cause or "") or "stopped", err=True)
        sys.exit(getattr(cause, "exit_code", 130))
    except BaseException as error:  # which the code of a user's own network may be the first to raise
        if told := (isinstance(error, OSError) and output_fault(error)) or no_room(error):
            click.echo(f"error: {redact(told)}", err=True)
            sys.exit(ConfigurationError.exit_code)
        if os.environ.get("CIFAR_MLFLOW_DEBUG"):
            raise
        click.echo(
            f"error: this should not have happened ({type(error).__name__}: {redact(str(error))}). "
            "Set CIFAR_MLFLOW_DEBUG=1 to see where, and report it",
            err=True,
        )
        sys.exit(1)


def _told(error: click.ClickException) -> str:
    """What click says of wrong words, and what to ask: in one message, as all others."""
    context = getattr(error, "ctx", None)
    told = error.format_message().rstrip(".")
    if context is None:
        return told
    return f"{told}{' See' if told.endswith('?') else '; see'} `{context.command_path} --help`"


@click.group(cls=Commands, context_settings=CONTEXT, sections=COMMANDS)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
def cli() -> None:
    """Run, track, compare and promote image-classification experiments with MLflow.

    To begin with: cifar-mlflow train --dataset digits --epochs 2

    Runs are tracked where MLFLOW_TRACKING_URI says, or in ./mlflow.db. Exit codes: 0 done, 1 a fault of this
    program, 2 wrong options, 3 data, 4 tracking store, 5 training cannot go on, 6 model, 7 not promoted,
    8 not reproduced, 9 not in order (doctor), 129, 130 and 143 interrupted.
    """
