"""The optimizer that a configuration names: torch's own, or Muon."""

import inspect
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


def build_optimizer(config: TrainingConfig, network: nn.Module) -> Optimizer:
    """The optimizer that `config` names, with torch's defaults for what is no field of it."""
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer in ("sgd", "rmsprop", "muon"):
        options["momentum"] = config.momentum
    if config.optimizer in ("sgd", "adam", "adamw"):
        # One kernel for all parameters instead of several for each.
        options["fused"] = not torch.backends.mps.is_available()
    return OPTIMIZERS[config.optimizer](_parameters(config, network), **options)


def _parameters(config: TrainingConfig, network: nn.Module) -> list[Any]:
    """What to train: biases and normalization are a group of their own if their rate differs."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.bias_rate == 1:
        return trained
    slopes = {id(module.weight) for module in network.modules() if isinstance(module, nn.PReLU)}
    weights = [parameter for parameter in trained if parameter.dim() >= 2 or id(parameter) in slopes]
    return [
        {"params": weights},
        {
            "params": [parameter for parameter in trained if parameter.dim() < 2 and id(parameter) not in slopes],
            "lr": config.learning_rate * config.bias_rate,
            "weight_decay": config.weight_decay / config.bias_rate,  # so that a step takes the same share off all
        },
    ]
