"""Which runs share a configuration: the same parameters (but the seed, and where they ran), data and own network."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from cifar_mlflow.config.training import NOT_IN_FINGERPRINT
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.records import RunRecord

# What a run read besides its parameters: the data, the source of a network of the user's own, weights to start from.
DIGESTS = ("dataset_digest", "network_digest", "pretrained_digest")
DIGITS_SHOWN = 8
# What may differ between two runs of one configuration, and may move its results.
CIRCUMSTANCES = ("git_commit", "git_dirty", "version_torch", "device", "precision_used", "kernels_used")


@dataclass(frozen=True)
class Reported:
    """Published results of one setting of parameters."""

    parameters: dict[str, object]
    accuracy: tuple[float, ...]


def group_by_configuration(runs: Iterable[RunRecord]) -> list[tuple[dict[str, object], list[RunRecord]]]:
    """Each configuration with its runs. The digest of data or network stands in it where only that sets it apart.

    Copies of one file are one dataset, and weights are the same under whatever name; the first of these is told.
    """
    paths: dict[str, object] = {}
    alike: defaultdict[Hashable, defaultdict[tuple[str | None, ...], list[RunRecord]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        settings = configuration_of(run)
        for name in ("dataset", "pretrained"):
            if name in settings and (digest := run.tags.get(f"{name}_digest")):
                settings[name] = paths.setdefault(digest, settings[name])
        alike[hashable(settings)][tuple(map(run.tags.get, DIGESTS))].append(run)
    found = []
    for by_digests in alike.values():
        different = [len(set(values)) > 1 for values in zip(*by_digests, strict=True)]
        for digests, group in by_digests.items():
            told = zip(DIGESTS, digests, different, strict=True)
            short = {name: str(digest or "unknown")[:DIGITS_SHOWN] for name, digest, differs in told if differs}
            found.append((configuration_of(group[0]) | short, group))
    return found


def configuration_of(run: RunRecord) -> dict[str, object]:
    return {name: value for name, value in run.parameters.items() if name not in NOT_IN_FINGERPRINT}


def circumstances(runs: Iterable[RunRecord]) -> dict[str, list[str]]:
    """What of the circumstances differs between the runs, as far as it was recorded: tag to its values, sorted."""
    values = {name: sorted({run.tags[name] for run in runs if name in run.tags}) for name in CIRCUMSTANCES}
    return {name: found for name, found in values.items() if len(found) > 1}


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
