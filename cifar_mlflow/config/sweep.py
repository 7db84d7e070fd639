"""What a sweep is: a base configuration, the space of what varies, how it is searched and how often each is repeated.

A spec is a YAML file. `load_spec` reads and checks it, every combination included, and reports all faults at once.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cifar_mlflow.config import search_space as spaces
from cifar_mlflow.config.faults import Sentence, describe, expected
from cifar_mlflow.config.paths import absolute, is_path
from cifar_mlflow.config.rules import faults_of, resolve
from cifar_mlflow.config.search_space import Choice, Parameter
from cifar_mlflow.config.training import AutoOrPositive, Folds, PositiveInt, Threads, TrainingConfig, parsed
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import NAME_LIMIT, as_option, fault, shown

MAX_RUNS = 10_000  # more is a mistake in the spec: at a minute a run it would take a week
# Objective -> the metric of each epoch that it is made of, and whether more of it is better.
OBJECTIVES = {
    "final_val_accuracy": ("val_accuracy", True),
    "best_val_accuracy": ("val_accuracy", True),
    "final_val_balanced_accuracy": ("val_balanced_accuracy", True),
    "val_loss": ("val_loss", False),
}


def is_of_the_test_set(metric: str) -> bool:
    """Whether the metric is measured on the test set, by which nothing may be chosen: test is a word of its name."""
    return "test" in metric.split("_")


def _not_of_the_test_set(objective: object) -> object:
    if is_of_the_test_set(str(objective)):
        use = f"by which nothing may be chosen; use {', '.join(OBJECTIVES)}"
        raise Sentence(f"{objective} is measured on the test set, {use}")
    return objective


class Budget(BaseModel):
    """Where to stop early. No new run begins after `minutes`, nor once the sweep has trained `runs` runs in all."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    minutes: float | None = Field(None, gt=0)
    runs: PositiveInt | None = None


class SweepConfig(BaseModel):
    """A sweep. `base` holds fields of TrainingConfig; each parameter of `space` takes the place of one of them.

    The pruner first decides about a run after `min_epochs`. On GPUs, a worker has `gpus_per_worker` of one for itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"), expected("letters, digits, _ . and -, at most 100")
    ]
    base: dict[str, Any] = {}
    space: dict[str, Parameter]
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: PositiveInt | None = None
    repeats: PositiveInt = 1
    folds: Folds = "none"
    pruner: Literal["none", "successive_halving"] = "none"
    min_epochs: PositiveInt = 1
    objective: Annotated[
        Literal["final_val_accuracy", "best_val_accuracy", "final_val_balanced_accuracy", "val_loss"],
        BeforeValidator(_not_of_the_test_set),
    ] = "final_val_accuracy"
    workers: AutoOrPositive = "auto"
    threads: Threads = 1
    gpus_per_worker: Annotated[float, Field(gt=0, le=1)] = 1.0
    budget: Budget = Budget()
    log_models: bool = True
    experiment: str | None = None

    @property
    def base_config(self) -> TrainingConfig:
        return resolve(self.base)

    @property
    def is_replication(self) -> bool:
        """True if nothing is held out: the runs are scored on the test set, so that nothing may be chosen by them."""
        return bool(self.base_value("validation_size") == 0)

    @property
    def seeds(self) -> list[int]:
        first = self.base_config.seed
        return list(range(first, first + self.repeats))

    @property
    def configurations(self) -> int:
        """The number of trials: the grid's size, or as many as are to be drawn."""
        return sum(1 for _ in self.grid()) if self.sampler == "grid" else self.trials or 0

    def grid(self) -> Iterator[dict[str, Any]]:
        """All combinations, the last parameter varying fastest; a parameter whose condition fails is left out."""
        return spaces.combinations(self.space, lambda entry: entry.choices())

    def configuration(self, values: Mapping[str, Any], seed: int) -> TrainingConfig:
        """The run of the combination `values` with `seed`; raises ConfigurationError if the values do not agree."""
        return resolve({**self.base, **values, "seed": seed, "threads": self.threads, "folds": self.folds})

    def base_value(self, name: str) -> Any:
        """What the field `name` is where the space does not vary it; as it was given if that is refused."""
        return parsed(name, self.base.get(name, getattr(TrainingConfig(), name)))

    def as_yaml(self) -> str:
        return yaml.safe_dump(self.as_data(), sort_keys=False, allow_unicode=True)

    def as_data(self) -> dict[str, Any]:
        """The spec as plain data, with what was not given left out."""
        data = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return {**data, "space": {name: entry.as_data() for name, entry in self.space.items()}}


def load_spec(path: str | Path) -> SweepConfig:
    """The checked spec in the YAML file. `config: FILE` in its base, and data files, are found beside it.

    Raises ConfigurationError with every fault of the spec and of its combinations.
    """
    return parse_spec(read_yaml(path), Path(path).absolute().parent, f"sweep {path}")


def parse_spec(values: Mapping[str, Any], directory: Path, source: str = "sweep") -> SweepConfig:
    """The checked spec in `values`; relative paths start at `directory`. Raises as `load_spec`."""
    if values and values.keys() <= TrainingConfig.model_fields.keys():
        one = "these are options of one training (`cifar-mlflow train --config FILE`); a sweep has them under base"
        raise ConfigurationError(f"{one}, beside name and space", source)
    faults: list[str] = []
    base = _read_base(values.get("base"), directory, faults)
    space = _read_space(values.get("space"), directory, faults)
    given = {**values, "base": base, "space": space}
    try:
        spec = SweepConfig.model_validate(given)
    except ValidationError as error:
        refused = describe(error, given, ": ".join, _no_such_key)
        faults += refused.values()
        # What remains valid is checked as well, so that one message tells all.
        wrong = {path[0] for path in refused}
        remaining = {name: value for name, value in given.items() if name not in wrong}
        spec = SweepConfig.model_validate({"name": "sweep", **remaining})
    faults += [f"base: {fault}" for fault in faults_of(base)]
    faults += _spec_faults(spec, values)
    of_values = [told for name, entry in spec.space.items() for told in spaces.value_faults(name, entry)]
    # A wrong value would be wrong again in each of its combinations.
    faults += of_values or _combination_faults(spec, known=faults)
    if faults:
        raise ConfigurationError(list(dict.fromkeys(faults)), source)
    return spec


def _read_base(given: object, directory: Path, faults: list[str]) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        faults.append("base: must be a mapping, such as {dataset: digits, epochs: 5}")
        return {}
    base = {str(name): value for name, value in given.items()}
    if (file := base.pop("config", None)) is not None:
        try:
            base = {**read_yaml(directory / str(file)), **base}
        except ConfigurationError as error:
            faults += [f"base: config: {file}: {fault}" for fault in error.faults]
    for name, beside in (("threads", "workers"), ("folds", "repeats")):
        if name in base:
            faults.append(f"base: {name}: give the sweep's own {name}, beside {beside}")
            del base[name]
    return {name: _beside(name, value, directory) for name, value in base.items()}


def _read_space(given: object, directory: Path, faults: list[str]) -> dict[str, Parameter]:
    if not isinstance(given, dict) or not given:
        faults.append("space: must map parameters to what they may be, such as activation: [relu, prelu]")
        return {}
    space: dict[str, Parameter] = {}
    for key, entry in given.items():
        name = str(key)
        try:
            parameter = spaces.parse_parameter(name, entry)
        except ConfigurationError as error:
            faults += error.faults
            continue
        if isinstance(parameter, Choice):
            values = tuple(_beside(name, value, directory) for value in parameter.values)
            parameter = parameter.model_copy(update={"values": values})
        space[name] = parameter
    faults += spaces.condition_faults(space, [str(key) for key in given])
    return space


def _beside(name: str, value: object, directory: Path) -> object:
    """A relative path in a spec is one beside it: `mlflow run` starts the sweep in another directory."""
    return absolute(str(value), directory) if is_path(name, value) else value


def _spec_faults(spec: SweepConfig, given: Mapping[str, Any]) -> Iterator[str]:
    if spec.experiment is not None and (told := fault(spec.experiment, NAME_LIMIT)):
        yield f"experiment: {shown(spec.experiment)} is refused: {told}"
    if spec.sampler == "grid":
        if spec.trials is not None:
            yield "trials: the grid sampler tries every combination; leave it out, or give budget: {runs: N}"
        for name, entry in spec.space.items():
            if entry.count is None:
                yield f"space: {name}: a grid needs a list, or a step; random and tpe draw from a range"
    elif spec.trials is None and "trials" not in given:
        yield f"trials: the {spec.sampler} sampler needs a number of trials"
    configurations = _grid_size(spec) if spec.sampler == "grid" else spec.trials or 0
    runs = configurations * spec.repeats
    if runs > MAX_RUNS:
        yield (
            f"space: these are {runs:,} runs ({configurations:,} configurations x {spec.repeats} seeds); at most "
            f"{MAX_RUNS:,} are allowed. Use sampler: random or tpe with trials, or shorter lists"
        )
    if spec.is_replication:
        for name, chosen, wanted in (("sampler", spec.sampler, "grid random"), ("pruner", spec.pruner, "none")):
            if chosen not in wanted.split():
                yield (
                    f"{name}: with validation_size 0 the runs are scored on the test set, by which {chosen} must not "
                    f"choose; use {wanted.replace(' ', ' or ')}"
                )
    if spec.folds != "none" and spec.repeats % spec.folds:
        yield (
            f"folds: each seed trains without one of {spec.folds} parts, so that repeats must be a multiple of "
            f"{spec.folds}, not {spec.repeats}, or not every image would be left out as often"
        )
    if spec.pruner != "none":
        varied = spec.space.get("epochs")
        epochs = varied.probes() if varied else [spec.base_value("epochs")]
        fewest = min((int(text) for text in map(str, epochs) if text.isdecimal()), default=0)
        if 0 < fewest <= spec.min_epochs:
            yield (
                f"pruner: {spec.pruner} first decides after epoch {spec.min_epochs} (min_epochs), and a run has "
                f"{fewest}; use fewer min_epochs, more epochs, or no pruner"
            )
    elif "min_epochs" in spec.model_fields_set and given.get("pruner", "none") == "none":
        yield "min_epochs: it has no effect without pruner: successive_halving"
    if spec.base_value("epoch_evaluation") is False and (spec.is_replication or spec.pruner != "none"):
        told = f"pruner: {spec.pruner} decides by them" if spec.pruner != "none" else "validation_size: 0 has no others"
        yield f"base: epoch_evaluation: false leaves out the scores after the epochs, but {told}"


def _grid_size(spec: SweepConfig) -> int:
    """The number of configurations of a grid; of one that is too large to be counted, the number without conditions."""
    counted = sum(1 for _ in itertools.islice(spec.grid(), MAX_RUNS + 1))
    return counted if counted <= MAX_RUNS else math.prod(entry.count or 1 for entry in spec.space.values())


def _combination_faults(spec: SweepConfig, known: Sequence[str]) -> list[str]:
    """Faults of the combinations of values that are right by themselves; `known` ones are not told again."""
    faults, seen = [], {text.removeprefix("base: ") for text in known}
    for combination in itertools.islice(spaces.combinations(spec.space, lambda entry: entry.probes()), MAX_RUNS):
        text = ", ".join(f"{name} {as_option(value)}" for name, value in combination.items())
        new = [told for told in faults_of({**spec.base, **combination}) if told not in seen]
        faults += [f"space: with {text}: {told}" for told in new]
        seen.update(new)
    return faults


def _no_such_key(path: Sequence[str]) -> str:
    if len(path) == 1 and path[0] in TrainingConfig.model_fields:
        return "it is an option of train, and belongs under base"
    model = SweepConfig if len(path) == 1 else Budget
    return f"a sweep has no such key (it has {', '.join(model.model_fields)})"
