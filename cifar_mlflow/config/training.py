"""What a training run is: every hyperparameter, its default, and what contradicts what.

Values come from the defaults below, then from a YAML file, then from options; `resolve` checks them all
together and reports every fault at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from cifar_mlflow import text as words
from cifar_mlflow.config.rules import contradictions
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import as_option

BUILT_IN_NETWORKS = ("report_cnn", "fast")
BUILT_IN_DATASETS = ("cifar10", "digits")
# What may differ between two runs of one configuration.
NOT_IN_FINGERPRINT = frozenset({"seed", "threads", "accelerate", "device", "data_dir", "epoch_evaluation"})


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
        "report_cnn", description="report_cnn, fast, or package.module:function for a network of your own"
    )
    widths: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_split_commas)] = Field(
        (64, 256, 256), description="channels of the three blocks (fast), as in 32,64,128"
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
        "none", description="random changes to the training images: flip; flip and shift"
    )
    alternate_flip: bool = Field(
        False, description="flip each image in every other epoch instead of at random (flip, flip_crop)"
    )
    shift: PositiveInt = Field(4, le=64, description="most pixels of the shift, in each direction (flip_crop)")
    padding: Literal["zeros", "reflect"] = Field("zeros", description="what a shift brings into the image (flip_crop)")
    normalize: bool = Field(False, description="standardize each channel by the training images' mean and deviation")
    loss: Literal["cross_entropy"] = Field("cross_entropy", description="loss function")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread over all classes")
    optimizer: Literal["sgd", "adam", "adamw", "adagrad", "rmsprop", "adamax", "asgd", "muon"] = Field(
        "adam", description="optimizer"
    )
    learning_rate: float = Field(0.002, gt=0, description="initial learning rate; the peak of one_cycle and triangular")
    bias_rate: float = Field(
        1.0, gt=0, description="rate of biases and normalization (PReLU's slope is neither), times --learning-rate"
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of sgd, rmsprop and muon's convolutions")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty; decoupled with adamw and muon")
    scheduler: Literal["none", "step", "multistep", "exponential", "cosine", "one_cycle", "triangular"] = Field(
        "step", description="learning rate schedule"
    )
    warmup: float = Field(0.2, ge=0, lt=1, description="share of the steps in which the rate rises (triangular)")
    step_size: PositiveInt = Field(20, description="epochs between two falls of the rate (step)")
    gamma: float = Field(0.2, gt=0, description="factor of each fall of the rate (step, multistep, exponential)")
    milestones: Annotated[tuple[PositiveInt, ...], BeforeValidator(_split_commas)] = Field(
        (15, 25), description="epochs after which the rate falls (multistep), as in 15,25"
    )
    batch_size: PositiveInt = Field(32, description="images a step")
    epochs: PositiveInt = Field(30, description="passes over the training images")
    averaging: Literal["none", "ema"] = Field(
        "none", description="weights to score and keep: the last step's, or their exponential moving average"
    )
    averaging_decay: float = Field(0.99, gt=0, lt=1, description="share of the average that a step keeps (ema)")
    epoch_evaluation: bool = Field(
        True, description="score after each epoch; false: after the last, and never on test images"
    )
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
    accelerate: Literal["auto", "none"] = Field(
        "auto", description="functions that train: auto is the compiled ones where there are any; none is torch's own"
    )

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
        options = [field.replace("_", "-") for field in TrainingConfig.model_fields]
        return f"{option}: no such option{words.did_you_mean(option.removeprefix('--'), options, '--')}"
    if name in _AUTO_OR_NUMBER:
        return f"{option}: {given} is refused: must be auto or a whole number, {_AUTO_OR_NUMBER[name]} or more"
    choices = [str(choice) for choice in get_args(TrainingConfig.model_fields[name].annotation)]
    if kind == "literal_error":
        text = ", ".join(choices)
        return f"{option}: {given} is not one of {text}{words.did_you_mean(str(value), choices)}"
    if kind == "string_too_short":
        return f"{option}: {given} is refused: must not be empty"
    if kind in ("value_error", "missing"):
        message = message.removeprefix("Value error, ")
    message = message.removeprefix("Input ").removeprefix("should be ")
    return f"{option}: {given} is refused: must be {message.removeprefix('must be ')}"


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
