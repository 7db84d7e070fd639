"""The optimizer that a configuration names: torch's own, or Muon."""

import inspect
from collections.abc import Collection
from typing import Any

import torch
from torch import nn, optim
from torch.optim import Optimizer

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.learning.optimizers.muon import Muon

# Methods that torch hides from its compiler; each wrapper imports it only to do so.
_HIDDEN = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def _without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """The optimizer class `kind` without its provisions for torch.compile, which nothing here uses.

    Those import the compiler at the first step, which takes longer than importing torch itself. The arithmetic is
    torch's own, to the last bit.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _HIDDEN}
    # Of step's wrappers one has another use: no gradients are recorded within.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


_CLASSES = (optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad, optim.RMSprop, optim.Adamax, optim.ASGD, Muon)
OPTIMIZERS = {kind.__name__.lower(): _without_compiler(kind) for kind in _CLASSES}


def build_optimizer(config: TrainingConfig, network: nn.Module, head: Collection[str] = ()) -> Optimizer:
    """The optimizer that `config` names, with torch's defaults for what is no field of it.

    `head` are the names of the parameters that are not the backbone's.
    """
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer in ("sgd", "rmsprop", "muon"):
        options["momentum"] = config.momentum
    if config.optimizer in ("sgd", "adam", "adamw"):
        # One kernel for all parameters instead of several for each.
        options["fused"] = not torch.backends.mps.is_available()
    return OPTIMIZERS[config.optimizer](_parameters(config, network, head), **options)


def _parameters(config: TrainingConfig, network: nn.Module, head: Collection[str]) -> list[Any]:
    """What to train: biases and normalization, and the backbone, are groups of their own if their rates differ.

    The first group is one whose rate is the rate itself, as it is logged.
    """
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if config.bias_rate == 1 and config.backbone_rate == 1:
        return list(trained.values())
    slopes = {id(module.weight) for module in network.modules() if isinstance(module, nn.PReLU)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, 1.0): []}
    for name, parameter in trained.items():
        is_weight = parameter.dim() >= 2 or id(parameter) in slopes
        of_kind = 1.0 if is_weight else config.bias_rate
        of_place = 1.0 if name in head else config.backbone_rate
        groups.setdefault((of_kind, of_place), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.learning_rate * of_kind * of_place,
            "weight_decay": config.weight_decay / of_kind,  # so that a step takes the same share off biases and weights
        }
        for (of_kind, of_place), parameters in groups.items()
    ]
