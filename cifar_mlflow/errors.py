"""Every error that a user can cause, each with its exit code.

    CifarMlflowError            1   anything below, and faults of no other kind
    ├── ConfigurationError      2   an option, a configuration file or their combination (as click's usage errors)
    ├── DataError               3   a dataset that is missing, damaged or of the wrong shape
    ├── TrackingError           4   the tracking server or store cannot be used
    ├── TrainingError           5   training cannot go on: memory is short, a checkpoint cannot be written
    │   └── Diverged            5   the loss is not finite
    ├── ModelError              6   a run or a model that cannot be found, loaded or asked
    ├── PromotionRefused        7   a gate did not let the model through, or there is nothing to roll back to
    ├── NotReproduced           8   a run done again came to other numbers
    └── NotInOrder              9   `doctor` has found what is not in order
    Interrupted               130   Ctrl-C; 143 after SIGTERM, 129 when the terminal is closed (a KeyboardInterrupt:
                                    no `except Exception` swallows it)

The message says what is wrong, where, and what to do; the command line prints it and exits with the code.
"""

import signal
from collections.abc import Iterator

from cifar_mlflow.text import count


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and then each that led to the one before it."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


class CifarMlflowError(Exception):
    """Base of all errors that end in one message and an exit code."""

    exit_code = 1


class ConfigurationError(CifarMlflowError):
    """One or more faults of a configuration, all reported together."""

    exit_code = 2

    def __init__(self, faults: str | list[str], source: str = "configuration") -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        self.source = source
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(f"{count(len(self.faults), 'fault')} in the {source}:{lines}")


class DataError(CifarMlflowError):
    """A dataset is missing, damaged, or not what it must be."""

    exit_code = 3


class TrackingError(CifarMlflowError):
    """The tracking server or its store cannot be reached, read or written."""

    exit_code = 4


class TrainingError(CifarMlflowError):
    """Training cannot go on."""

    exit_code = 5


class Diverged(TrainingError):
    """The loss is no longer finite; the same configuration would come to this again."""


class ModelError(CifarMlflowError):
    """A run or a model cannot be found, or the model not be loaded."""

    exit_code = 6


class PromotionRefused(CifarMlflowError):
    """A registry alias was not moved, for a reason that lies in the models."""

    exit_code = 7


class NotReproduced(CifarMlflowError):
    """A run that was done again differs from the original."""

    exit_code = 8


class NotInOrder(CifarMlflowError):
    """Something around the runs is not in order, and was not put right."""

    exit_code = 9


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to stop; the exit code is 128 plus the signal's number."""

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
