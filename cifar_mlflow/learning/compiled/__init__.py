"""Layers of torch.nn that train by compiled C code on a processor, behind one door: `accelerate`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from cifar_mlflow.config.training import BUILT_IN_NETWORKS, TrainingConfig
from cifar_mlflow.learning.compiled import bindings, convolution, layers, pooling

# By the exact type: a class that is derived from one of torch's may compute something else.
ACCELERATED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: convolution.Conv2d,
    nn.Flatten: layers.Flatten,
    nn.MaxPool2d: pooling.MaxPool2d,
    nn.PReLU: layers.PReLU,
    nn.Sequential: layers.Sequential,
}
# Of networks of any shape, torchvision's.
ACCELERATED_LARGE = ACCELERATED | {nn.Conv2d: convolution.LargeConv2d}
PLAIN = {ours: torchs for kinds in (ACCELERATED, ACCELERATED_LARGE) for torchs, ours in kinds.items()}


def applies_to(config: TrainingConfig) -> bool:
    """Whether the layers are to be accelerated; those of a user's own network stay torch's."""
    return config.accelerate == "auto" and not config.is_own_network


def accelerate(network: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]] = ACCELERATED) -> None:
    """Gives each layer of `classes` in a network on the CPU its faster class; others are left as they are.

    The objects stay the same: parameters, buffers, hooks, the mode and the keys of state_dict. Without the compiled
    functions, PReLU and Flatten still gain something.
    """
    if all(parameter.is_cpu for parameter in network.parameters()):
        _change_classes(network, classes)


def restore(network: nn.Module) -> None:
    """Undoes `accelerate`: all layers are torch's own again."""
    _change_classes(network, PLAIN)


def accelerate_for(config: TrainingConfig, network: nn.Module) -> None:
    """`accelerate` as `config` asks for it, if it does."""
    if applies_to(config):
        accelerate(network, ACCELERATED if config.network in BUILT_IN_NETWORKS else ACCELERATED_LARGE)


def describe(config: TrainingConfig, device: torch.device) -> str:
    """Whose functions train: their results differ in the last bits."""
    return bindings.describe(device) if applies_to(config) else "torch"


def _change_classes(network: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    for module in network.modules():
        # torch.nn.utils.parametrize changes classes in the same way. The new one adds no state to that of torch's.
        module.__class__ = classes.get(type(module), type(module))
