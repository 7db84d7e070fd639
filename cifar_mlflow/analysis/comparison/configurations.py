"""Which runs share a configuration: every parameter but the seed and those that say only where a run took place."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.records import RunRecord

NOT_CONFIGURATION = frozenset({"seed", "threads", "accelerate", "device", "data_dir"})


@dataclass(frozen=True)
class Reported:
    """Published results of one setting of parameters."""

    parameters: dict[str, object]
    accuracy: tuple[float, ...]


def group_by_configuration(runs: Iterable[RunRecord]) -> list[list[RunRecord]]:
    groups: defaultdict[Hashable, list[RunRecord]] = defaultdict(list)
    for run in runs:
        groups[hashable(configuration_of(run))].append(run)
    return list(groups.values())


def configuration_of(run: RunRecord) -> dict[str, object]:
    return {name: value for name, value in run.parameters.items() if name not in NOT_CONFIGURATION}


def hashable(value: object) -> Hashable:
    """The value of a parameter such that equal settings are equal: [1, 2] as (1, 2), 1 as 1.0, but not 1 as True."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), hashable(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(hashable(item) for item in value)
    if isinstance(value, bool):
        return ("bool", value)
    return value if isinstance(value, Hashable) else repr(value)


def sorting_key(parameters: Mapping[str, object]) -> list[tuple[str, int, float, str]]:
    """A key that sorts configurations by their parameters: numbers by size, all else as text."""
    return [
        (name, 0, float(value), "") if isinstance(value, int | float) else (name, 1, 0.0, str(value))
        for name, value in sorted(parameters.items())
    ]


def parse_reported(entry: Mapping[str, object]) -> Reported:
    """One published result: parameters, and accuracy as a number or a list of them; else ConfigurationError."""
    accuracy = entry.get("accuracy")
    given = accuracy if isinstance(accuracy, list | tuple) else [accuracy]
    values = [float(value) for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    if not given or len(values) < len(given) or not all(map(math.isfinite, values)):
        raise ConfigurationError(f"no accuracy, or not a number: {dict(entry)}", "reported results")
    parameters = {name: value for name, value in entry.items() if name != "accuracy"}
    return Reported(parameters, tuple(values))


def matches(entry: Reported, parameters: Mapping[str, object]) -> bool:
    """Whether the configuration has every parameter that was reported; what was not reported may be anything."""
    same = {name: value for name, value in parameters.items() if name in entry.parameters}
    return hashable(same) == hashable(entry.parameters)
