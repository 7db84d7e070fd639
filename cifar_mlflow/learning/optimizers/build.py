"""Optimizers and learning rate schedules, each built from the configuration's fields alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.learning.optimizers import eager as optim
from cifar_mlflow.learning.optimizers.muon import Muon


def build_optimizer(config: TrainingConfig, network: nn.Module) -> optim.Optimizer:
    """The optimizer that `config` names, with torch's defaults for what is no field of it."""
    rate, decay, parameters = config.learning_rate, config.weight_decay, _parameters(config, network)
    # One kernel for all parameters instead of several for each.
    fused = not torch.backends.mps.is_available()
    match config.optimizer:
        case "sgd":
            return optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay, fused=fused)
        case "adam":
            return optim.Adam(parameters, rate, weight_decay=decay, fused=fused)
        case "adamw":
            return optim.AdamW(parameters, rate, weight_decay=decay, fused=fused)
        case "adagrad":
            return optim.Adagrad(parameters, rate, weight_decay=decay)
        case "rmsprop":
            return optim.RMSprop(parameters, rate, momentum=config.momentum, weight_decay=decay)
        case "adamax":
            return optim.Adamax(parameters, rate, weight_decay=decay)
        case "asgd":
            return optim.ASGD(parameters, rate, weight_decay=decay)
        case "muon":
            return Muon(parameters, rate, config.momentum, decay)


def _parameters(config: TrainingConfig, network: nn.Module) -> list[Any]:
    """What to train: biases and normalization are a group of their own if their rate differs."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.bias_rate == 1:
        return trained
    slopes = {id(module.weight) for module in network.modules() if isinstance(module, nn.PReLU)}
    biases = [parameter for parameter in trained if parameter.dim() < 2 and id(parameter) not in slopes]
    chosen = {id(parameter) for parameter in biases}
    return [
        {"params": [parameter for parameter in trained if id(parameter) not in chosen]},
        {
            "params": biases,
            "lr": config.learning_rate * config.bias_rate,
            "weight_decay": config.weight_decay / config.bias_rate,  # so that a step takes the same share off all
        },
    ]


class Schedule:
    """The learning rate over the run. Call `after_step` and `after_epoch` as their names say."""

    def __init__(self, config: TrainingConfig, optimizer: optim.Optimizer, steps_per_epoch: int) -> None:
        self._optimizer = optimizer
        self._every_step = config.scheduler in ("one_cycle", "triangular")
        steps = config.epochs * steps_per_epoch
        self._scheduler: lr_scheduler.LRScheduler | None
        match config.scheduler:
            case "none":
                self._scheduler = None
            case "step":
                self._scheduler = lr_scheduler.StepLR(optimizer, config.step_size, config.gamma)
            case "multistep":
                self._scheduler = lr_scheduler.MultiStepLR(optimizer, list(config.milestones), config.gamma)
            case "exponential":
                self._scheduler = lr_scheduler.ExponentialLR(optimizer, config.gamma)
            case "cosine":
                self._scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
            case "one_cycle":
                # Momentum stays what --momentum says.
                peaks = [group["lr"] for group in optimizer.param_groups]
                self._scheduler = lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, cycle_momentum=False)
            case "triangular":
                rising = min(round(config.warmup * steps), steps - 1)  # the last step is left for the fall
                self._scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: _triangle(step, rising, steps))

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        if self._scheduler is not None and self._every_step:
            self._scheduler.step()

    def after_epoch(self) -> None:
        if self._scheduler is not None and not self._every_step:
            self._scheduler.step()

    def state(self) -> dict[str, Any]:
        """How far the schedule is. The rate itself is part of the optimizer's state."""
        values = {} if self._scheduler is None else self._scheduler.state_dict()
        return {name: value for name, value in values.items() if name in ("last_epoch", "_step_count", "_last_lr")}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to where `state` was taken from a schedule of the same configuration."""
        if self._scheduler is not None:
            # LambdaLR's own method asks for the function too, which is no state.
            lr_scheduler.LRScheduler.load_state_dict(self._scheduler, dict(state))


def _triangle(step: int, rising: int, steps: int) -> float:
    """Factor of the rate at `step`, from 0: up in `rising` steps to one, then down in a line that ends at `steps`."""
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(steps - step, 0) / (steps - rising)
