"""The user's own network: a function that builds it, named as package.module:function, and what goes wrong in it."""

import functools
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cifar_mlflow import process_state
from cifar_mlflow.config.training import BUILT_IN_NETWORKS, TrainingConfig
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError
from cifar_mlflow.memory import is_out_of_memory
from cifar_mlflow.text import did_you_mean, first_line

# Where an error comes from nobody's network: torch, this package, and what Python itself brings.
_TORCH, _PACKAGE = str(Path(torch.__file__).parent), str(Path(__file__).parents[2])
_PYTHON = sysconfig.get_path("stdlib")


def build(config: TrainingConfig, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """What the function that `config.network` names builds from (classes, config).

    It is looked for in the current directory too. `config` has every option as an attribute, and `image_shape`
    (height, width, channels). The network takes float32 images (n, channels, height, width) to logits (n, classes).
    It is run once, in evaluation mode, so that lazy layers have their weights.

    Raises ConfigurationError if there is no such function, it fails, or its network does not fit images and classes.
    """
    function = _imported(config)
    with faults_told(config, f"it fails on images of {image_shape}"):
        network = function(classes, SimpleNamespace(**dict(config), image_shape=image_shape))
        if not isinstance(network, nn.Module):
            raise fault(config, f"it returns {type(network).__name__} instead of a torch.nn.Module")
        if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
            raise fault(config, "it holds a scripted module (torch.jit), which cannot be exported; leave it unscripted")
    return tried(config, network, classes, image_shape)


def tried(config: TrainingConfig, network: nn.Module, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The network in train mode, if it takes images of `image_shape` (height, width, channels) to `classes` logits.

    Raises ConfigurationError if it does not.
    """
    height, width, channels = image_shape
    with faults_told(config, f"it fails on images of {image_shape}"):
        network.eval()
        for count in (2, 1):
            with torch.no_grad():
                logits = logits_of(network(torch.zeros(count, channels, height, width)))
            if not isinstance(logits, torch.Tensor) or logits.shape != (count, classes):
                shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
                raise fault(
                    config, f"for {count} images it gives {shape} instead of logits of shape {(count, classes)}"
                )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise fault(config, "it has no parameter to train: in none of them is requires_grad true")
    return network.train()


def logits_of(output: torch.Tensor | tuple[torch.Tensor, ...] | list[torch.Tensor]) -> torch.Tensor:
    """The logits among what a network returns: the first of several, as before those of auxiliary classifiers."""
    return output[0] if isinstance(output, tuple | list) else output


class Copyable(TorchFunctionMode):
    """Within it copy.deepcopy takes networks that keep an activation, or a weight that weight_norm has computed.

    Of such a tensor torch refuses a copy, since it has a gradient to pass on; the copy made here passes on none.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


@contextmanager
def faults_told(config: TrainingConfig, doing: str) -> Iterator[None]:
    """An error within the block, in which the user's own network works, becomes a ConfigurationError with its place.

    Our own networks' errors, this package's and want of memory stay what they are.
    """
    try:
        yield
    except (CifarMlflowError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit() too, and whatever else their code raises
        if config.network in BUILT_IN_NETWORKS or is_out_of_memory(error):
            raise
        raise fault(config, f"{doing}: {_told(error)}") from error


def fault(config: TrainingConfig, reason: str) -> ConfigurationError:
    return ConfigurationError(f"--network: {config.network}: {reason}", "options")


def _imported(config: TrainingConfig) -> Callable[..., object]:
    module_name, _, name = config.network.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script does not look there by itself
        process_state.at_end(functools.partial(sys.path.remove, os.getcwd()))
    with faults_told(config, f"it cannot be imported from {os.getcwd()} or sys.path"):
        module = importlib.import_module(module_name)
        try:
            function: Callable[..., object] = getattr(module, name)
        except AttributeError as error:
            raise AttributeError(f"{error}{did_you_mean(name, dir(module))}") from None
    return function


def module_file(config: TrainingConfig) -> Path | None:
    """The file of the module that holds the user's network, once it was built; None if the network is one of ours."""
    module = sys.modules.get(config.network.partition(":")[0]) if config.is_own_network else None
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _told(error: BaseException) -> str:
    """The error in one line, with the place in the user's file."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_of_user(frame.filename)]
    place = f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"


def _is_of_user(filename: str) -> bool:
    if filename.startswith((_TORCH, _PACKAGE, "<frozen")):
        return False
    return not filename.startswith(_PYTHON) or "site-packages" in filename
