"""The user's own network: a function that builds it, named as package.module:function."""

import functools
import importlib
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from cifar_mlflow import process_state
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import did_you_mean, first_line


def build(config: TrainingConfig, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """What the function that `config.network` names builds from (classes, config).

    It is looked for in the current directory too. `config` has every option as an attribute, and `image_shape`
    (height, width, channels). The network takes float32 images (n, channels, height, width) to logits (n, classes).

    Raises ConfigurationError if there is no such function, it fails, or its network does not fit images and classes.
    """
    module_name, _, name = config.network.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script does not look there by itself
        process_state.at_end(functools.partial(sys.path.remove, os.getcwd()))
    module = None
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, name)
    except (Exception, SystemExit) as error:
        hint = did_you_mean(name, dir(module)) if module else ""
        raise _fault(config, f"it cannot be imported from {os.getcwd()} or sys.path: {_told(error)}{hint}") from error
    height, width, channels = image_shape
    try:
        network = function(classes, SimpleNamespace(**dict(config), image_shape=image_shape))
        if not isinstance(network, nn.Module):
            raise _fault(config, f"it returns {type(network).__name__} instead of a torch.nn.Module")
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, channels, height, width))
        network.train()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise _fault(config, f"it fails on images of {image_shape}: {_told(error)}") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise _fault(config, f"for 2 images it gives {shape} instead of logits of shape (2, {classes})")
    return network


def module_file(config: TrainingConfig) -> Path | None:
    """The file of the module that holds the user's network, once it was built; None if the network is one of ours."""
    module = sys.modules.get(config.network.partition(":")[0]) if ":" in config.network else None
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _fault(config: TrainingConfig, reason: str) -> ConfigurationError:
    return ConfigurationError(f"--network: {config.network}: {reason}", "options")


def _told(error: BaseException) -> str:
    """The error in one line, with the place in the user's file."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {first_line(error)} ({frames[-1].filename}, line {frames[-1].lineno})"
