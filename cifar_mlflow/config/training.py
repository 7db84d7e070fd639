"""What a training run is: every hyperparameter, its default and what it may be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from cifar_mlflow.config.faults import expected
from cifar_mlflow.text import PATH_LIMIT, as_option, fault

BUILT_IN_NETWORKS = ("report_cnn", "fast")
BUILT_IN_DATASETS = ("cifar10", "digits")
# What may differ between two runs of one configuration.
NOT_IN_FINGERPRINT = frozenset({"seed", "threads", "device", "data_dir", "epoch_evaluation"})


def _split_commas(value: object) -> object:
    """`15,25` and `[15, 25]`, as typed in a shell, are lists like YAML's own."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
AutoOrPositive = Annotated[Literal["auto"] | PositiveInt, expected("auto or a whole number, 1 or more")]
AutoOrCount = Annotated[Literal["auto"] | Annotated[int, Field(ge=0)], expected("auto or a whole number, 0 or more")]
Network = Annotated[
    str,
    Field(pattern=rf"^({'|'.join(BUILT_IN_NETWORKS)}|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"),
    expected(f"{', '.join(BUILT_IN_NETWORKS)} or package.module:function"),
]
Dataset = Annotated[
    str,
    Field(pattern=rf"(?s)^({'|'.join(BUILT_IN_DATASETS)}|.*\.npz)$"),
    expected(f"{', '.join(BUILT_IN_DATASETS)} or a path that ends in .npz"),
]


class TrainingConfig(BaseModel):
    """One training run. The defaults are the 2020 report's final method, as its code really was."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    network: Network = Field(
        "report_cnn", description="report_cnn, fast, or package.module:function for a network of your own"
    )
    widths: Annotated[
        tuple[PositiveInt, PositiveInt, PositiveInt],
        BeforeValidator(_split_commas),
        expected("three whole numbers, 1 or more, as in 32,64,128"),
    ] = Field((64, 256, 256), description="channels of the three blocks (fast), as in 32,64,128")
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
    dataset: Dataset = Field("cifar10", description="cifar10, digits, or the path of an .npz file")
    data_dir: str = Field(
        "auto",
        description="directory that holds CIFAR-10; auto is $CIFAR_MLFLOW_DATA, else a download to the user's cache",
    )
    validation_size: AutoOrCount = Field(
        "auto", description="images held out of training; auto is 10%; 0 trains on all and scores on the test set"
    )
    split_seed: Seed = Field(0, description="seed of the train/validation split, which all repeats share")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the training steps; auto is bfloat16 where the hardware has it"
    )
    threads: AutoOrPositive = Field("auto", description="processor threads; auto is torch's own choice")

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """YAML reads `epochs: yes` as true, which would count as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("a number")
        return value

    @field_validator("dataset", "data_dir")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if told := fault(value, PATH_LIMIT):
            raise ValueError(f"a path, but {told}")
        if not value:
            raise ValueError("not be empty")
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


def parsed(name: str, value: object) -> object:
    """The value that the field `name` makes of `value`; `value` itself if it is refused."""
    try:
        return getattr(TrainingConfig.model_validate({name: value}), name)
    except ValidationError:
        return value


def parse_logged(parameters: Mapping[str, str]) -> dict[str, object]:
    """Typed values of logged parameters, so that `0.0020` is `0.002`; those that are no field are left out.

    A value that no longer validates is returned as the text that was logged.
    """
    values = {
        name: parsed(name, parameters[name]) if name in parameters else field.default
        for name, field in TrainingConfig.model_fields.items()
    }
    return {name: as_option(value) if isinstance(value, tuple) else value for name, value in values.items()}
