"""What a training run is: every hyperparameter, its default, and what contradicts what.

Values come from the defaults below, then from a YAML file, then from options; `resolve` checks them all
together and reports every fault at once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from cifar_mlflow import words
from cifar_mlflow.errors import ConfigurationError

BUILT_IN_NETWORKS = ("report_cnn",)
BUILT_IN_DATASETS = ("cifar10", "digits")
# What may differ between two runs of one configuration.
MOST_VALUES = 100_000  # in a YAML file; the largest of ours has some hundred
NOT_IN_FINGERPRINT = frozenset({"seed", "threads", "device", "data_dir"})


def _split_commas(value: object) -> object:
    """`15,25` and `[15, 25]`, as typed in a shell, are lists like YAML's own."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _known_network(value: object) -> object:
    if isinstance(value, str) and (value in BUILT_IN_NETWORKS or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value)):
        return value
    raise ValueError(f"must be {', '.join(BUILT_IN_NETWORKS)} or package.module:function")


def _known_dataset(value: object) -> object:
    if isinstance(value, str) and (value in BUILT_IN_DATASETS or value.endswith(".npz")):
        return value
    raise ValueError(f"must be {', '.join(BUILT_IN_DATASETS)} or a path that ends in .npz")


Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=0)]


class TrainingConfig(BaseModel):
    """One training run. The defaults are the 2020 report's final method, as its code really was."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    network: Annotated[str, BeforeValidator(_known_network)] = Field(
        "report_cnn", description="report_cnn, or package.module:function for a network of your own"
    )
    activation: Literal["relu", "leaky_relu", "prelu", "rrelu", "elu", "gelu", "silu"] = Field(
        "prelu", description="activation function"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="probability that a channel or unit is dropped")
    batch_norm: bool = Field(True, description="batch normalization after each hidden layer")
    weight_init: Literal["default", "kaiming", "xavier"] = Field(
        "default", description="initialization of the weights; default is torch's own"
    )
    augmentation: Literal["none", "flip", "flip_crop"] = Field(
        "none", description="random changes to the training images: flip; flip and 4-pixel shift"
    )
    normalize: bool = Field(False, description="standardize each channel by the training images' mean and deviation")
    loss: Literal["cross_entropy"] = Field("cross_entropy", description="loss function")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread over all classes")
    optimizer: Literal["sgd", "adam", "adamw", "adagrad", "rmsprop", "adamax", "asgd"] = Field(
        "adam", description="optimizer"
    )
    learning_rate: float = Field(0.002, gt=0, description="initial learning rate; the peak of one_cycle")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of sgd and rmsprop")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty; decoupled with adamw")
    scheduler: Literal["none", "step", "multistep", "exponential", "cosine", "one_cycle"] = Field(
        "step", description="learning rate schedule"
    )
    step_size: PositiveInt = Field(20, description="epochs between two falls of the rate (step)")
    gamma: float = Field(0.2, gt=0, description="factor of each fall of the rate (step, multistep, exponential)")
    milestones: Annotated[tuple[PositiveInt, ...], BeforeValidator(_split_commas)] = Field(
        (15, 25), description="epochs after which the rate falls (multistep), as in 15,25"
    )
    batch_size: PositiveInt = Field(32, description="images a step")
    epochs: PositiveInt = Field(30, description="passes over the training images")
    seed: Seed = Field(0, description="seed of the weights, the order of the images, dropout and augmentation")
    dataset: Annotated[str, BeforeValidator(_known_dataset)] = Field(
        "cifar10", description="cifar10, digits, or the path of an .npz file"
    )
    data_dir: str = Field(
        "auto",
        min_length=1,
        description="directory that holds CIFAR-10; auto is $CIFAR_MLFLOW_DATA, else a download to the user's cache",
    )
    validation_size: Literal["auto"] | Count = Field(
        "auto", description="images held out of training; auto is 10%; 0 trains on all and scores on the test set"
    )
    split_seed: Seed = Field(0, description="seed of the train/validation split, which all repeats share")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the training steps; auto is bfloat16 where the hardware has it"
    )
    threads: Literal["auto"] | PositiveInt = Field("auto", description="processor threads; auto is torch's own choice")

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """YAML reads `epochs: yes` as true, which would count as 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and (annotation in (int, float) or info.field_name in _AUTO_OR_NUMBER):
            raise ValueError("must be a number")
        return value

    @field_validator("dataset", "data_dir")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if told := words.fault(value, words.PATH_LIMIT):
            raise ValueError(f"a path, but {told}")
        return value

    @property
    def trains_on_all(self) -> bool:
        """True if no validation images are held out, as in the report."""
        return self.validation_size == 0

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name the configuration: equal for runs that differ in seed or machine only."""
        values = self.model_dump(mode="json", exclude=set(NOT_IN_FINGERPRINT))
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def run_fingerprint(self, data_digest: str) -> str:
        """16 hex digits that name this run: the configuration, its seed and the data's digest."""
        return hashlib.sha256(f"{self.fingerprint}/{self.seed}/{data_digest}".encode()).hexdigest()[:16]

    def as_options(self) -> dict[str, str]:
        """Every field as it is typed on a command line and logged as a parameter."""
        return {name: as_option(value) for name, value in self}

    def as_yaml(self) -> str:
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def as_option(value: object) -> str:
    """`value` as a person would type it: true, 15,25, 0.002."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigurationError: no such file, not YAML, not a mapping, or a key that stands twice.
    """
    source = f"file {path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except UnicodeDecodeError:
        raise ConfigurationError("it is not a text file in UTF-8", source) from None
    except OSError as error:
        raise ConfigurationError(f"it cannot be read: {error.strerror}", source) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"it is not valid YAML: {' '.join(str(error).split())}", source) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError("it must hold a mapping, such as `activation: prelu`", source)
    if not _is_small(values):
        raise ConfigurationError(f"its anchors unfold to more than {MOST_VALUES:,} values, or into themselves", source)
    return {str(key): value for key, value in values.items()}


def _is_small(values: object) -> bool:
    """Whether what a file of a few lines refers to again and again stays of a size that can be copied and printed."""
    count, left = 1, [values]
    while left and count <= MOST_VALUES:
        value = left.pop()
        inner = list(value.values()) if isinstance(value, dict) else value
        if isinstance(inner, list | tuple | set):
            count += len(inner)
            left += inner
    return count <= MOST_VALUES


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that stands twice (the last would win in silence)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):  # its value is a list, which can be no member of a set
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def resolve(values: Mapping[str, Any], source: str = "configuration") -> TrainingConfig:
    """A checked configuration: the defaults, overridden by `values`.

    Raises:
        ConfigurationError: with every unknown key, wrong value and contradiction, each named by its option.
    """
    faults: list[str] = []
    refused: set[str] = set()
    try:
        config = TrainingConfig.model_validate(dict(values))
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            name = str(entry["loc"][0]) if entry["loc"] else ""
            if name not in refused:
                refused.add(name)
                faults.append(_describe(name, entry["type"], entry["msg"], values.get(name)))
        # What remains is valid, so contradictions among it can be told in the same message.
        remaining = {name: value for name, value in values.items() if name not in refused}
        config = TrainingConfig.model_validate(remaining)
    faults += [text for fields, text in contradictions(config) if not refused.intersection(fields)]
    if faults:
        raise ConfigurationError(faults, source)
    return config


_AUTO_OR_NUMBER = {"validation_size": 0, "threads": 1}  # option -> its least number


def _describe(name: str, kind: str, message: str, value: object) -> str:
    option = "--" + name.replace("_", "-")
    given = words.shown(value) if isinstance(value, str) else repr(value)
    if kind == "extra_forbidden":
        return f"{option}: no such option{_did_you_mean(name)}"
    if name in _AUTO_OR_NUMBER:
        return f"{option}: {given} is refused: must be auto or a whole number, {_AUTO_OR_NUMBER[name]} or more"
    choices = [str(choice) for choice in get_args(TrainingConfig.model_fields[name].annotation)]
    if kind == "literal_error":
        text = ", ".join(choices)
        return f"{option}: {given} is not one of {text}{_did_you_mean(str(value), choices)}"
    if kind == "string_too_short":
        return f"{option}: {given} is refused: must not be empty"
    if kind in ("value_error", "missing"):
        message = message.removeprefix("Value error, ")
    message = message.removeprefix("Input ").removeprefix("should be ")
    return f"{option}: {given} is refused: must be {message.removeprefix('must be ')}"


def _did_you_mean(word: str, known: list[str] | None = None) -> str:
    match = difflib.get_close_matches(word, list(TrainingConfig.model_fields) if known is None else known, n=1)
    if not match:
        return ""
    return f" (did you mean {match[0] if known is not None else '--' + match[0].replace('_', '-')}?)"


def contradictions(config: TrainingConfig) -> Iterator[tuple[set[str], str]]:
    """Pairs of the fields concerned and what is wrong with their combination."""
    if config.scheduler == "multistep":
        if not config.milestones:
            yield {"scheduler", "milestones"}, "--milestones: --scheduler multistep needs at least one"
        if list(config.milestones) != sorted(set(config.milestones)):
            yield (
                {"scheduler", "milestones"},
                f"--milestones: {as_option(config.milestones)} must rise, each larger than the one before",
            )
    if config.batch_norm and config.batch_size == 1:
        yield (
            {"batch_norm", "batch_size"},
            "--batch-size: 1 cannot be combined with --batch-norm true, which needs two images or more a step",
        )


# Which options act only under which other one: option -> (deciding option, values under which it acts).
_ACTS_ONLY_WITH: dict[str, tuple[str, set[str]]] = {
    "momentum": ("optimizer", {"sgd", "rmsprop"}),
    "step_size": ("scheduler", {"step"}),
    "gamma": ("scheduler", {"step", "multistep", "exponential"}),
    "milestones": ("scheduler", {"multistep"}),
    "data_dir": ("dataset", {"cifar10"}),
}


def without_effect(config: TrainingConfig) -> list[str]:
    """A warning for each option that changes nothing under the other options given."""
    warnings = []
    defaults = SimpleNamespace(**{name: field.default for name, field in TrainingConfig.model_fields.items()})
    for name, (decider, effective) in _ACTS_ONLY_WITH.items():
        value, chosen = getattr(config, name), getattr(config, decider)
        if value != getattr(defaults, name) and chosen not in effective:
            warnings.append(
                f"--{name.replace('_', '-')} {as_option(value)} has no effect with --{decider} {chosen} "
                f"(it acts with {', '.join(sorted(effective))})"
            )
    if config.trains_on_all and config.split_seed != defaults.split_seed:
        warnings.append("--split-seed has no effect with --validation-size 0: there is no split")
    if config.scheduler == "step" and config.step_size >= config.epochs:
        warnings.append(
            f"--scheduler step has no effect: the rate first falls after {config.step_size} epochs "
            f"(--step-size) and the run has {config.epochs}"
        )
    if config.scheduler == "multistep":
        late = [milestone for milestone in config.milestones if milestone >= config.epochs]
        if late:
            warnings.append(f"--milestones {as_option(late)} has no effect: the run ends after {config.epochs} epochs")
    if config.scheduler == "exponential" and config.epochs == 1:
        warnings.append("--scheduler exponential has no effect: the rate first falls after epoch 1, and the run has 1")
    if config.gamma == 1 and config.scheduler in _ACTS_ONLY_WITH["gamma"][1]:
        warnings.append("--gamma 1 has no effect: it leaves the rate as it is")
    if config.gamma > 1 and config.scheduler in _ACTS_ONLY_WITH["gamma"][1]:
        warnings.append(f"--gamma {config.gamma} makes the rate rise: a decaying schedule has a gamma below 1")
    return warnings


def parse_logged(parameters: Mapping[str, str]) -> dict[str, object]:
    """Typed values of logged parameters, so that `0.0020` is `0.002`; those that are no field are left out.

    A value that no longer validates is returned as the text that was logged.
    """
    parsed: dict[str, object] = {}
    for name, field in TrainingConfig.model_fields.items():
        value: object = field.default
        if name in parameters:
            try:
                value = getattr(TrainingConfig.model_validate({name: parameters[name]}), name)
            except ValidationError:
                value = parameters[name]
        parsed[name] = as_option(value) if isinstance(value, tuple) else value
    return parsed
