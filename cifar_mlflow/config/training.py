"""What a training run is: every hyperparameter, its default and what it may be."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from cifar_mlflow.config.faults import expected
from cifar_mlflow.text import PATH_LIMIT, as_option, did_you_mean, fault

BUILT_IN_NETWORKS = ("report_cnn", "fast")
TORCHVISION = "torchvision:"  # what a network of torchvision.models begins with
NAMED_DATASETS = ("cifar100", "mnist", "fashion_mnist", "svhn")  # those of torchvision
BUILT_IN_DATASETS = ("cifar10", "digits", *NAMED_DATASETS)
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# What may differ between two runs of one configuration. Not epoch_evaluation: without it the best epoch is the last.
NOT_IN_FINGERPRINT = frozenset({"seed", "threads", "accelerate", "device", "data_dir", "skip_unreadable"})
# Fields that were added later: at their defaults, runs that were recorded before keep their names.
ADDED = frozenset(
    {
        "image_size", "test_size", "class_weights",
        "folds", "pretrained", "freeze", "backbone_rate", "mix", "accumulate", "clip_grad", "patience", "max_minutes",
    }
)  # fmt: skip


def _split_commas(value: object) -> object:
    """`15,25` and `[15, 25]`, as typed in a shell, are lists like YAML's own."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


Activation = Literal["relu", "leaky_relu", "prelu", "rrelu", "elu", "gelu", "silu"]
Optimizer = Literal["sgd", "adam", "adamw", "adagrad", "rmsprop", "adamax", "asgd", "muon"]
Scheduler = Literal["none", "step", "multistep", "exponential", "cosine", "one_cycle", "triangular"]
Augmentation = Literal["none", "flip", "flip_crop", "random_resized_crop", "random_erasing", "trivial_augment"]
Precision = Literal["auto", "float32", "bfloat16"]
WeightInit = Literal["default", "kaiming", "xavier"]
_UNSIGNED_ZERO = AfterValidator(abs)  # -0.0 is 0.0
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, lt=1), _UNSIGNED_ZERO]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
Shift = Annotated[int, Field(ge=1, le=64)]
AutoOrPositive = Annotated[Literal["auto"] | PositiveInt, expected("auto or a whole number, 1 or more")]
Threads = Annotated[int, Field(ge=1, le=1024)]  # with far more, the system runs out of memory or of processes
AutoOrThreads = Annotated[Literal["auto"] | Threads, expected("auto or a whole number from 1 to 1024")]
NoneOrCount = Annotated[Literal["none"] | PositiveInt, expected("none or a whole number, 1 or more")]
NoneOrPositive = Annotated[Literal["none"] | Positive, expected("none or a number greater than 0")]
AutoOrCount = Annotated[Literal["auto"] | Annotated[int, Field(ge=0)], expected("auto or a whole number, 0 or more")]
Network = Annotated[
    str,
    Field(pattern=rf"^({'|'.join(BUILT_IN_NETWORKS)}|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"),
    expected(f"{', '.join(BUILT_IN_NETWORKS)}, torchvision:NAME or package.module:function"),
]
_SUFFIXES = "|".join(map(re.escape, WEIGHT_FILES))
Pretrained = Annotated[
    str,
    Field(pattern=rf"(?s)^(none|default|[0-9a-f]{{32}}|[^/@]+@[^/@]+|models:/.+|.*({_SUFFIXES}))$"),
    expected(f"none, default, a file of weights ({', '.join(WEIGHT_FILES[:3])}), a run id or NAME@ALIAS"),
]
Dataset = Annotated[
    str,
    Field(pattern=rf"(?s)^({'|'.join(BUILT_IN_DATASETS)}|.*\.npz|.*/.*|~|\.\.?)$"),
    expected(
        f"{', '.join(BUILT_IN_DATASETS)}, a path that ends in .npz, or a folder, with a slash, as in photos/",
        lambda name: (
            f" (did you mean {name}/?)" if name and Path(name).is_dir() else did_you_mean(name, BUILT_IN_DATASETS)
        ),
    ),
]
ImageSize = Annotated[
    Literal["auto"] | Annotated[int, Field(ge=4, le=1024)], expected("auto or a whole number from 4 to 1024")
]
PartSize = Annotated[
    Literal["auto"] | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)],
    expected("auto, a number of images, 1 or more, or a share between 0 and 1"),
]
Folds = Annotated[
    Literal["none"] | Annotated[int, Field(ge=2, le=1000)], expected("none or a whole number from 2 to 1,000")
]
Milestones = Annotated[tuple[PositiveInt, ...], BeforeValidator(_split_commas)]
Widths = Annotated[
    tuple[PositiveInt, PositiveInt, PositiveInt],
    BeforeValidator(_split_commas),
    expected("three whole numbers, 1 or more, as in 32,64,128"),
]


def field(default: object, description: str, **limits: Any) -> Any:
    """A field of the configuration; its description stands in the help of its option."""
    return Field(default, description=description, **limits)


class TrainingConfig(BaseModel):
    """One training run. The defaults are the 2020 report's final method, as its code really was."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    network: Network = field(
        "report_cnn", "report_cnn, fast, torchvision:NAME, or package.module:function for a network of your own"
    )
    pretrained: Pretrained = field(
        "none", "weights to start from: default (torchvision's own), a file, or the model of a run id or NAME@ALIAS"
    )
    freeze: Literal["none", "backbone"] = field(
        "none", "what of the network is not trained; the backbone is all but the last layer"
    )
    backbone_rate: Positive = field(1.0, "rate of the backbone, times --learning-rate")
    widths: Widths = field((64, 256, 256), "channels of the three blocks (fast), as in 32,64,128")
    activation: Activation = field("prelu", "activation function")
    dropout: Share = field(0.0, "probability that a channel or unit is dropped")
    batch_norm: bool = field(True, "batch normalization after each hidden layer")
    weight_init: WeightInit = field("default", "initialization of the weights; default is torch's own")
    augmentation: Augmentation = field("none", "random changes to the training images: flip; flip and shift; others")
    alternate_flip: bool = field(False, "flip each image in every other epoch instead of at random (all augmentations)")
    shift: Shift = field(4, "most pixels of a shift, in each direction (flip_crop and others)")
    padding: Literal["zeros", "reflect"] = field("zeros", "what a shift brings into the image (flip_crop and others)")
    mix: Literal["none", "mixup", "cutmix"] = field("none", "blend or paste two images of a batch, and their labels")
    normalize: bool = field(False, "standardize each channel by the training images' mean and deviation")
    loss: Literal["cross_entropy"] = field("cross_entropy", "loss function")
    label_smoothing: Share = field(0.0, "share of each label spread over all classes")
    optimizer: Optimizer = field("adam", "optimizer")
    learning_rate: Positive = field(0.002, "initial learning rate; the peak of one_cycle and triangular")
    bias_rate: Positive = field(
        1.0, "rate of biases and normalization (PReLU's slope is neither), times --learning-rate"
    )
    momentum: Share = field(0.0, "momentum of sgd, rmsprop and muon's convolutions")
    weight_decay: Annotated[float, Field(ge=0), _UNSIGNED_ZERO] = field(
        0.0, "L2 penalty; decoupled with adamw and muon"
    )
    scheduler: Scheduler = field("step", "learning rate schedule")
    warmup: Share = field(0.2, "share of the steps in which the rate rises (triangular)")
    step_size: PositiveInt = field(20, "epochs between two falls of the rate (step)")
    gamma: Positive = field(0.2, "factor of each fall of the rate (step, multistep, exponential)")
    milestones: Milestones = field((15, 25), "epochs after which the rate falls (multistep), as in 15,25")
    batch_size: PositiveInt = field(32, "images a step")
    accumulate: PositiveInt = field(1, "batches whose gradients make one step")
    clip_grad: NoneOrPositive = field("none", "largest norm of a step's gradient, over all weights")
    epochs: PositiveInt = field(30, "passes over the training images")
    patience: NoneOrCount = field("none", "end after so many epochs without a better validation accuracy")
    max_minutes: NoneOrPositive = field("none", "end with the epoch in which so many minutes have passed")
    averaging: Literal["none", "ema"] = field(
        "none", "weights to score and keep: the last step's, or their exponential moving average"
    )
    averaging_decay: float = field(0.99, "share of the average that a step keeps (ema)", gt=0, lt=1)
    epoch_evaluation: bool = field(True, "score after each epoch; false: after the last, and never on test images")
    seed: Seed = field(0, "seed of the weights, the order of the images, dropout and augmentation")
    dataset: Dataset = field(
        "cifar10", f"{', '.join(BUILT_IN_DATASETS)}, an .npz file, or a folder with a folder of images for each class"
    )
    data_dir: str = field(
        "auto",
        "directory that holds the files of a dataset with a name; auto is $CIFAR_MLFLOW_DATA, else a download to the "
        "user's cache",
    )
    image_size: ImageSize = field(
        "auto", "pixels a side of the images of a folder; auto is the size that all have, if it is at most 64"
    )
    test_size: PartSize = field(
        "auto", "test images, or their share, taken from a folder that has no test folder; auto is 15%"
    )
    skip_unreadable: bool = field(False, "go on without the files of a folder that cannot be read")
    validation_size: AutoOrCount = field(
        "auto", "images held out of training; auto is 10%; 0 trains on all and scores on the test set"
    )
    split_seed: Seed = field(0, "seed of the train/validation split, which all repeats share")
    folds: Folds = field(
        "none", "train without one of so many parts of the training images, by the seed; its answers are recorded"
    )
    class_weights: Literal["none", "balanced"] = field(
        "none", "weight of each class in the loss; balanced: inverse to its number of training images, 1 on average"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = field("auto", "where to train")
    precision: Precision = field("auto", "arithmetic of the training steps; auto is bfloat16 where the hardware has it")
    threads: AutoOrThreads = field("auto", "processor threads; auto is torch's own choice")
    accelerate: Literal["auto", "none"] = field(
        "auto", "functions that train: auto is the compiled ones where there are any; none is torch's own"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """YAML reads `epochs: yes` as true, which would count as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("a number")
        return value

    @field_validator("dataset", "data_dir", "pretrained")
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
    def dataset_name(self) -> str:
        """What the dataset is called: its own name, or that of its file or folder."""
        place = PurePath(self.dataset)
        return (place.stem if self.dataset.endswith(".npz") else place.name) or "images"

    @property
    def is_folder(self) -> bool:
        """True if the dataset is a folder of images."""
        return self.dataset not in BUILT_IN_DATASETS and not self.dataset.endswith(".npz")

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name the configuration: equal for runs that differ in seed or machine only.

        Of the user's own files it does not tell which they are: see `run_fingerprint`.
        """
        # Runs that were recorded before epoch_evaluation counted keep their names.
        extra = {"epoch_evaluation"} if self.epoch_evaluation else set()
        extra |= {name for name in ADDED if getattr(self, name) == type(self).model_fields[name].default}
        values = self.model_dump(mode="json", exclude={*NOT_IN_FINGERPRINT, *extra})
        if self.dataset not in BUILT_IN_DATASETS:
            values["dataset"] = "file"  # one and the same wherever it is, which its digest says
        if self.pretrained not in ("none", "default"):
            values["pretrained"] = "weights"  # likewise
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def run_fingerprint(self, data_digest: str, network_digest: str = "", pretrained_digest: str = "") -> str:
        """16 hex digits that name this run: the configuration, its seed, and the digests of what it was made from.

        Those are the data, a network of the user's own, and the weights that it starts from.
        """
        parts = [self.fingerprint, self.seed, data_digest, *filter(None, [network_digest, pretrained_digest])]
        return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]

    @property
    def is_own_network(self) -> bool:
        """True if the network is made by the user's own code."""
        return self.network not in BUILT_IN_NETWORKS and not self.network.startswith(TORCHVISION)

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
