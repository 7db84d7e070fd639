"""Plain data that one part of the package fills and another reads: what a run was, and what `doctor` has found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What the weights of a run are called once a temperature was fitted to them, by what they were called before.
CALIBRATED = {"last": "calibrated", "best": "best_calibrated"}
WEIGHTS = (*CALIBRATED, *CALIBRATED.values())


@dataclass(frozen=True, eq=False)
class Predictions:
    """Per-image results of one model on the validation split; the three arrays have one entry an image."""

    index: NDArray[np.int64]
    """Position of the image in the training set it was split from: says which images two models share."""
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]


@dataclass(frozen=True)
class RunRecord:
    """One run, read back from the tracking store."""

    run_id: str
    name: str
    status: str
    """MLflow's: FINISHED, FAILED, KILLED, RUNNING or SCHEDULED."""
    seed: int
    parameters: dict[str, object] = field(default_factory=dict)
    """Parsed values, not MLflow's strings."""
    kind: str = "single"
    """single, trial or sweep (the parent of a sweep's trials, which trains nothing itself)."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Latest value of each metric but those of the machine, system/...; accuracies in per cent."""
    minutes: float | None = None
    start_time: datetime | None = None
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Metric to its (epoch, value) pairs, epochs counted from 1."""
    predictions: Predictions | None = None
    url: str | None = None
    """The run's page in MLflow's user interface."""
    tags: dict[str, str] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    """How many images its train, validation and test split have, as far as that was recorded."""


@dataclass(frozen=True)
class RunSummary:
    """A run or a sweep in one line. Accuracies are per cent, None where there is none (yet); `started` is in UTC.

    Those of a sweep are its winner's. `status` is MLflow's, or DIED: RUNNING by a process of this machine that is gone.
    `go_on` is the command that then goes on with it.
    """

    run_id: str
    name: str
    kind: str
    experiment: str
    status: str
    metric: str | None
    accuracy: float | None
    test_accuracy: float | None
    started: datetime | None
    minutes: float | None
    go_on: str | None


@dataclass(frozen=True)
class Finding:
    """Something that `doctor` tells: `text` says what and where, `remedy` what to do about it.

    A note is only good to know. `fix` puts right what is found, if that is safe: it looks again before it acts, and
    returns what it has done, or raises a CifarMlflowError.
    """

    severity: Literal["error", "warning", "note"]
    text: str
    remedy: str = ""
    fix: Callable[[], str] | None = None


@dataclass
class TrialOutcome:
    """How a run of a sweep ended: FINISHED with the objective's value, FAILED or PRUNED; and a reason.

    `images` are those that the objective was measured on, 0 if unknown.
    """

    status: str
    value: float | None = None
    reason: str = ""
    images: int = 0
