"""The parts into which the runs of a sweep are dealt, so that processes anywhere can each run one."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import count, shown

MOST = 1000


@dataclass(frozen=True)
class Parts:
    """The parts `numbers`, from 1 on, of `of`."""

    numbers: tuple[int, ...]
    of: int

    def has(self, run: int) -> bool:
        """Whether the run of that number (from 0) in the sweep's own order is in one of these parts."""
        return run % self.of + 1 in self.numbers

    def name(self, run: int) -> str:
        """The part of that run: 2/4."""
        return f"{run % self.of + 1}/{self.of}"

    @property
    def names(self) -> list[str]:
        return [f"{number}/{self.of}" for number in self.numbers]

    def __str__(self) -> str:
        return f"part{'s' if len(self.numbers) > 1 else ''} {', '.join(self.names)}"


def parse(part: str | None, take_over: Sequence[int], recorded: int | None, name: str) -> Parts:
    """The parts that a command is to run; `recorded` is the number of parts of a sweep that was begun in parts.

    ConfigurationError if they are no parts, or it cannot be known of how many.
    """
    numbers, of = [], recorded
    if part is not None:
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", part)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of <= MOST:
            rule = f"must be I/N, such as 1/4, with I from 1 to N and N at most {MOST:,}"
            raise ConfigurationError(f"--part: {shown(part)} is refused: {rule}", "options")
        numbers.append(number)
    if of is None:
        told = f"--take-over: no part of a sweep {name} was ever begun here; give --part I/N beside it, or alone"
        raise ConfigurationError(told, "options")
    faults = [
        f"--take-over: {number} is refused: the parts are 1 to {of}" for number in take_over if not 1 <= number <= of
    ]
    if faults:
        raise ConfigurationError(faults, "options")
    return Parts(tuple(dict.fromkeys([*numbers, *take_over])), of)


def refuse_together(part: str | None, take_over: Sequence[int], *, report: bool, offline: bool) -> None:
    """ConfigurationError if the options contradict each other."""
    faults = []
    if report:
        given = {"--part": part is not None, "--take-over": bool(take_over), "--offline": offline}
        faults = [f"{option}: --report trains nothing; leave one of them out" for option in given if given[option]]
    elif offline and part is None:
        faults.append("--offline: only a part can be run without the store; give --part I/N, or 1/1 for all")
    if offline and os.environ.get("MLFLOW_RUN_ID"):
        faults.append("--offline: `mlflow run` has made a run on the tracking store already")
    if faults:
        raise ConfigurationError(faults, "options")


def refuse_indivisible(spec: SweepConfig, parts: Parts | None) -> None:
    """ConfigurationError if it depends on the results of some runs which others there are, or there are too few.

    Without `parts` it is the report that has to know which runs there are.
    """
    faults, runs = [], spec.configurations * spec.repeats
    option = "--part" if parts else "--report"
    instead = f"use sampler: grid or random without a pruner, or leave {option} out"
    if spec.sampler == "tpe":
        faults.append(f"{option}: sampler: tpe chooses each trial by the results of all before; {instead}")
    if spec.pruner != "none":
        faults.append(f"{option}: pruner: {spec.pruner} holds each run against those of all parts; {instead}")
    if parts and spec.budget.runs is not None:
        told = "budget: runs is of the whole sweep, and no part counts the runs of others"
        faults.append(f"{option}: {told}; give minutes, which each part has for itself")
    if parts and parts.of > runs:
        faults.append(f"{option}: {parts.of} parts are refused: the sweep has {count(runs, 'run')}")
    if faults:
        raise ConfigurationError(faults, f"sweep {spec.name} and the options")
