"""The gates that a model must pass to be promoted: each says what it required, what it observed, and the outcome."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from cifar_mlflow import tables
from cifar_mlflow.analysis.paired import difference_interval, images_needed
from cifar_mlflow.analysis.statistics import mcnemar

TOLERANCE = 1e-4  # by which probabilities computed elsewhere may differ: other processors add in another order
SMOKE = f"loads without this package or pickle and answers as in training, within {TOLERANCE:g}"


@dataclass(frozen=True)
class Gate:
    """One gate's outcome. `passed` is None if nothing was asked of it."""

    name: str
    required: str
    observed: str
    passed: bool | None

    @property
    def outcome(self) -> str:
        return {True: "passed", False: "failed", None: "not asked"}[self.passed]


@dataclass(frozen=True)
class Rivals:
    """McNemar's counts of two models on the same images; `p` is the mid-p value, two-sided."""

    images: int
    both: int
    only_new: int
    only_champion: int
    p: float

    @classmethod
    def count(cls, new: NDArray[np.bool_], champion: NDArray[np.bool_]) -> Self:
        """`new` and `champion` say of each image, in the same order, whether the model was right."""
        only_new, only_champion = int((new & ~champion).sum()), int((champion & ~new).sum())
        p = float(mcnemar(only_new, only_champion))
        return cls(len(new), int((new & champion).sum()), only_new, only_champion, p)

    def verdict(self, significance: float) -> Literal["better", "worse", "not distinguishable"]:
        if self.p >= significance:
            return "not distinguishable"
        return "better" if self.only_new > self.only_champion else "worse"

    def difference(self, significance: float) -> tuple[float, float, float]:
        """How many points the new model is above the champion, and the interval of it at 1 - `significance`."""
        low, high = difference_interval(self.only_new, self.only_champion, self.images, 1 - significance)
        return 100 * (self.only_new - self.only_champion) / self.images, 100 * low, 100 * high


def smoke(expected: NDArray[np.float32], answered: NDArray[np.float32], seconds: float, megabytes: float) -> Gate:
    """Whether the file, loaded elsewhere, computes what the training's network computed."""
    if expected.shape != answered.shape:
        return Gate("smoke", SMOKE, f"answers of shape {answered.shape} instead of {expected.shape}", False)
    difference = float(np.abs(expected - answered).max())
    observed = f"differs by {difference:.1e} at most; {seconds:.1f} s to load and answer, {megabytes:.1f} MB"
    return Gate("smoke", SMOKE, observed, difference <= TOLERANCE)


def accuracy(test_accuracy: float, minimum: float | None) -> Gate:
    """The threshold of the test accuracy, in per cent; None asks for nothing."""
    observed = f"{test_accuracy:.2f}%"
    if minimum is None:
        return Gate("accuracy", "no threshold (--min-accuracy)", observed, None)
    return Gate("accuracy", f"at least {minimum:g}%", observed, test_accuracy >= minimum)


def class_recall(recall: NDArray[np.float64], classes: Sequence[str], minimum: float | None) -> Gate:
    """The threshold of each class, in per cent; of a class without an image (nan) nothing is known, so it fails."""
    worst = int(np.nanargmin(recall))
    unknown = [name for name, value in zip(classes, recall, strict=True) if np.isnan(value)]
    without = [f"no image of: {', '.join(unknown)}"] if unknown else []
    lowest = f"the lowest is {classes[worst]}: {recall[worst]:.1f}%"
    if minimum is None:
        return Gate("class recall", "no threshold (--min-class-recall)", "; ".join([lowest, *without]), None)
    below = [f"{name} {value:.1f}%" for name, value in zip(classes, recall, strict=True) if value < minimum]
    observed = "; ".join([f"below: {', '.join(below)}" if below else lowest, *without])
    return Gate("class recall", f"each at least {minimum:g}%", observed, not below and not unknown)


def champion(
    rivals: Rivals | None, require: str, significance: float, against: str, margin: float | None = None
) -> Gate:
    """Whether the model may take the place of the champion, which `against` names.

    `require` is better (than the champion, significantly) or not-worse (a tie lets the new model in). With a `margin`
    (points) not-worse means not inferior: the whole interval of the paired difference must lie above -`margin`.
    """
    tie = "keeps the champion" if require == "better" else "lets the new model in"
    level = f"McNemar's test at {100 * significance:g}%"
    rule = f"{require.replace('-', ' ')} than the best champion so far by {level}: a tie {tie}"
    interval = f"{100 * (1 - significance):g}% interval"
    if margin is not None:
        rule = f"the {interval} of the difference from the best champion so far above -{margin:g} points"
    if rivals is None:
        return Gate("champion", rule, f"{against}: the first model is not compared", True)
    new, old = (100 * (rivals.both + alone) / rivals.images for alone in (rivals.only_new, rivals.only_champion))
    observed = (
        f"{new:.2f}% against {old:.2f}% of {against}; of {rivals.images:,} images right alone "
        f"on {rivals.only_new:,} and {rivals.only_champion:,}, "
    )
    if margin is None:
        verdict = rivals.verdict(significance)
        passed = verdict == "better" if require == "better" else verdict != "worse"
        return Gate("champion", rule, f"{observed}p = {rivals.p:.2g}: {verdict}", passed)
    difference, low, high = rivals.difference(significance)
    observed += f"difference {difference:+.2f}, {interval} {low:+.2f} to {high:+.2f}: "
    if low > -margin:
        observed += f"no more than {margin:g} points below"
    elif high < -margin:
        observed += f"more than {margin:g} points below"
    else:
        share = max(1, rivals.only_new + rivals.only_champion) / rivals.images
        needed = images_needed(share, margin / 100, 1 - significance)
        observed += (
            f"cannot be told; for two equal models that disagree on as many it takes {needed:,} images (power 80%)"
        )
    return Gate("champion", rule, observed, low > -margin)


def markdown(gates: Sequence[Gate]) -> str:
    """The gates as a Markdown table."""
    rows = [(gate.name, gate.outcome, gate.observed, gate.required) for gate in gates]
    return tables.markdown(("gate", "outcome", "observed", "required"), rows, "llll")
