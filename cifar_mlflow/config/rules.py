"""Checks of a training configuration as a whole: what contradicts something else, or has no effect beside it.

Values come from the defaults, then from a YAML file, then from options; all are checked together, and every fault is
reported at once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from cifar_mlflow.config.faults import describe
from cifar_mlflow.config.paths import is_path, moved, relative_faults, with_absolute_paths
from cifar_mlflow.config.training import NAMED_DATASETS, TORCHVISION, TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import as_option, count, did_you_mean, option_name


def resolve(values: Mapping[str, Any], source: str = "configuration") -> TrainingConfig:
    """A checked configuration: the defaults, overridden by `values`, with absolute paths.

    Raises ConfigurationError with every unknown key, wrong value and contradiction, each named by its option.
    """
    if faults := faults_of(values):
        raise ConfigurationError(faults, source)
    return with_absolute_paths(TrainingConfig.model_validate(dict(values)))


def recorded(values: Mapping[str, Any], source: str = "configuration") -> TrainingConfig:
    """As `resolve`, of what a run has recorded: nobody knows where a relative path began, so it stays what it was."""
    if faults := _faults(values):
        raise ConfigurationError(faults, source)
    return TrainingConfig.model_validate(dict(values))


def without_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options among `values`, as text, that are not what they would be anyway.

    `mlflow run` gives all of them, those too that nobody has typed.
    """
    defaults = TrainingConfig().as_options()
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def resolve_moved(config: TrainingConfig, data_dir: str | None) -> TrainingConfig:
    """A recorded configuration whose data are in `data_dir` now, if that is given; see `paths.moved`."""
    given = {} if data_dir is None else moved(config, resolve({"data_dir": data_dir}, "options").data_dir)
    return resolve({**config.model_dump(), **given})


def faults_of(values: Mapping[str, Any]) -> list[str]:
    """All that `resolve` would report of the `values`."""
    return [*_faults(values), *relative_faults(values)]


def _faults(values: Mapping[str, Any]) -> list[str]:
    refused: dict[str, str] = {}
    try:
        config = TrainingConfig.model_validate(dict(values))
    except ValidationError as error:
        found = describe(error, values, lambda path: option_name(path[0]), lambda path: _no_such_option(path[0]))
        refused = {path[0]: text for path, text in found.items()}
        # What remains is valid, so contradictions among it can be told in the same message.
        config = TrainingConfig.model_validate({name: values[name] for name in values if name not in refused})
    return [*refused.values(), *(text for fields, text in _contradictions(config) if fields.isdisjoint(refused))]


def _no_such_option(name: str) -> str:
    known = [option_name(field).removeprefix("--") for field in TrainingConfig.model_fields]
    return f"no such option{did_you_mean(option_name(name).removeprefix('--'), known, '--')}"


def _contradictions(config: TrainingConfig) -> Iterator[tuple[set[str], str]]:
    """Pairs of the fields concerned and what is wrong with their combination."""
    if config.scheduler == "multistep":
        if not config.milestones:
            yield {"scheduler", "milestones"}, "--milestones: --scheduler multistep needs at least one"
        if list(config.milestones) != sorted(set(config.milestones)):
            text = f"--milestones: {as_option(config.milestones)} must rise, each larger than the one before"
            yield {"scheduler", "milestones"}, text
    if config.batch_norm and config.batch_size == 1:
        text = "--batch-size: 1 cannot be combined with --batch-norm true, which needs two images or more a step"
        yield {"batch_norm", "batch_size"}, text
    if not config.batch_norm and config.network == "fast":
        yield {"network", "batch_norm"}, "--batch-norm: --network fast cannot be without it"
    if not config.batch_norm and config.optimizer == "muon":
        text = "--optimizer muon sets the scale of each convolution, so it needs batch normalization"
        yield {"optimizer", "batch_norm"}, f"--batch-norm: {text}"
    if config.pretrained == "default" and not config.network.startswith(TORCHVISION):
        text = f"--pretrained: default is of torchvision's networks alone, not of --network {config.network}"
        yield {"network", "pretrained"}, text
    if config.patience != "none":
        if config.scheduler in ENDS_WITH_THE_RUN:
            yield (
                {"patience", "scheduler"},
                f"--patience: {config.patience} cannot be combined with --scheduler {config.scheduler}, whose rate "
                "falls towards the last of --epochs; use none, step, multistep or exponential",
            )
        if config.trains_on_all:
            text = "--patience: with --validation-size 0 the test images would say when to end"
            yield {"patience", "validation_size"}, text
        elif not config.epoch_evaluation:
            text = "--patience: --epoch-evaluation false leaves out the scores by which it decides"
            yield {"patience", "epoch_evaluation"}, text


# Schedules whose rate, in every epoch, depends on how many there are.
ENDS_WITH_THE_RUN = {"cosine", "one_cycle", "triangular"}
SHIFTING = {"flip_crop", "random_erasing", "trivial_augment"}
# Which options act only under which other one: option -> (deciding option, values under which it acts).
ACTS_ONLY_WITH: dict[str, tuple[str, set[str]]] = {
    "widths": ("network", {"fast"}),
    "alternate_flip": ("augmentation", {"flip", "random_resized_crop", *SHIFTING}),
    "shift": ("augmentation", SHIFTING),
    "padding": ("augmentation", SHIFTING),
    "momentum": ("optimizer", {"sgd", "rmsprop", "muon"}),
    "warmup": ("scheduler", {"triangular"}),
    "averaging_decay": ("averaging", {"ema"}),
    "step_size": ("scheduler", {"step"}),
    "gamma": ("scheduler", {"step", "multistep", "exponential"}),
    "milestones": ("scheduler", {"multistep"}),
    "data_dir": ("dataset", {"cifar10", *NAMED_DATASETS}),
    "backbone_rate": ("freeze", {"none"}),
}
# Options of our own networks, to which torchvision's do not listen.
OF_OUR_NETWORKS = ("activation", "dropout", "batch_norm")


def batch_warning(config: TrainingConfig, images: int) -> str | None:
    """That a batch, or the batches of a step, would be more than all `images` to train on."""
    if config.batch_size <= images:
        batches = -(-images // config.batch_size)
        one_step = f"each epoch is one step of all {batches:,} batches"
        told = f"--accumulate {config.accumulate} has no effect beyond {batches:,}: {one_step}"
        return told if config.accumulate > batches else None
    all_in_one = f"each epoch is one step of all {images:,} training images"
    return f"--batch-size {config.batch_size} has no effect beyond {images:,}: {all_in_one}"


def without_effect(config: TrainingConfig) -> list[str]:
    """A warning for each option that changes nothing under the other options given.

    Given are `config.model_fields_set`: that a short training of the defaults keeps its rate is no news.
    """
    defaults, chosen = TrainingConfig(), config.as_options()
    inert = [
        f"{option_name(name)} {chosen[name]} has no effect with {option_name(decider)} {chosen[decider]} "
        f"(it acts with {', '.join(sorted(effective))})"
        for name, (decider, effective) in ACTS_ONLY_WITH.items()
        if getattr(config, name) != getattr(defaults, name) and chosen[decider] not in effective
    ]
    of_folders = [
        f"{option_name(name)} {chosen[name]} has no effect with --dataset {config.dataset}: it is for folders of images"
        for name in ("image_size", "test_size", "skip_unreadable")
        if getattr(config, name) != getattr(defaults, name) and not config.is_folder
    ]
    if config.network.startswith(TORCHVISION):
        inert += [
            f"{option_name(name)} {chosen[name]} has no effect with --network {config.network}"
            for name in OF_OUR_NETWORKS
            if getattr(config, name) != getattr(defaults, name)
        ]
    late = [milestone for milestone in config.milestones if milestone >= config.epochs]
    falls = config.scheduler in ACTS_ONLY_WITH["gamma"][1]
    others = {
        "--split-seed has no effect with --validation-size 0: there is no split": (
            # Of a folder the test images may be drawn too, which is not known yet.
            config.split_seed != defaults.split_seed
            and config.trains_on_all
            and config.folds == "none"
            and not config.is_folder
        ),
        f"--scheduler step has no effect: the rate first falls after {config.step_size} epochs (--step-size) and the "
        f"run has {config.epochs}": (
            config.scheduler == "step"
            and config.step_size >= config.epochs
            and not config.model_fields_set.isdisjoint({"scheduler", "step_size"})
        ),
        f"--milestones {as_option(late)} has no effect: the run ends after {config.epochs} epochs": (
            config.scheduler == "multistep" and late
        ),
        "--scheduler exponential has no effect: the rate first falls after epoch 1, and the run has 1": (
            config.scheduler == "exponential" and config.epochs == 1
        ),
        f"--normalize true has no effect with --pretrained {config.pretrained}: that has a normalization of its own": (
            config.normalize and config.pretrained != "none" and not is_path("pretrained", config.pretrained)
        ),
        "--freeze backbone with --pretrained none leaves the backbone as it was drawn at random": (
            config.freeze == "backbone" and config.pretrained == "none"
        ),
        f"--patience {config.patience} has no effect: the run has {count(config.epochs, 'epoch')}": (
            config.patience != "none" and config.patience >= config.epochs
        ),
        "--gamma 1 has no effect: it leaves the rate as it is": falls and config.gamma == 1,
        f"--gamma {config.gamma} makes the rate rise: a decaying schedule has a gamma below 1": (
            falls and config.gamma > 1
        ),
    }
    return inert + of_folders + [text for text, holds in others.items() if holds]
