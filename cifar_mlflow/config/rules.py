"""What in a training configuration contradicts something else, or has no effect beside it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

from cifar_mlflow.text import as_option

if TYPE_CHECKING:
    from cifar_mlflow.config.training import TrainingConfig


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
    if not config.batch_norm:
        if config.network == "fast":
            yield {"network", "batch_norm"}, "--batch-norm: --network fast cannot be without it"
        if config.optimizer == "muon":
            yield (
                {"optimizer", "batch_norm"},
                "--batch-norm: --optimizer muon sets the scale of each convolution, so it needs batch normalization",
            )


# Which options act only under which other one: option -> (deciding option, values under which it acts).
_ACTS_ONLY_WITH: dict[str, tuple[str, set[str]]] = {
    "widths": ("network", {"fast"}),
    "alternate_flip": ("augmentation", {"flip", "flip_crop"}),
    "shift": ("augmentation", {"flip_crop"}),
    "padding": ("augmentation", {"flip_crop"}),
    "momentum": ("optimizer", {"sgd", "rmsprop", "muon"}),
    "warmup": ("scheduler", {"triangular"}),
    "averaging_decay": ("averaging", {"ema"}),
    "step_size": ("scheduler", {"step"}),
    "gamma": ("scheduler", {"step", "multistep", "exponential"}),
    "milestones": ("scheduler", {"multistep"}),
    "data_dir": ("dataset", {"cifar10"}),
}


def without_effect(config: TrainingConfig) -> list[str]:
    """A warning for each option that changes nothing under the other options given."""
    warnings = []
    defaults = SimpleNamespace(**{name: field.default for name, field in type(config).model_fields.items()})
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
