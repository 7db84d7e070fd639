"""Weights to start from: torchvision's own, those of a file, or those of a model that was trained before."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import cache_directory
from cifar_mlflow.errors import DataError, ModelError
from cifar_mlflow.learning.networks import torchvision_models
from cifar_mlflow.learning.networks.preprocessing import Preprocessing
from cifar_mlflow.process_state import DOWNLOAD_TIMEOUT, socket_timeout
from cifar_mlflow.text import first_line

# Where training scripts keep the weights in a checkpoint, and what parallel training puts before each name.
NESTED = ("state_dict", "model_state_dict", "model")
PREFIX = "module."


@dataclass(frozen=True)
class Pretrained:
    """Weights by their names in the network's state_dict, on the CPU; `source` says where they are from.

    `preprocessing` is the normalization that belongs to them, as the state of `Preprocessing`, and `classes` are what
    their last layer tells apart; None if that is not known.
    """

    source: str
    weights: Mapping[str, torch.Tensor]
    preprocessing: Mapping[str, torch.Tensor] | None = None
    classes: tuple[str, ...] | None = None

    @cached_property
    def digest(self) -> str:
        """32 hex digits, of the names and every bit."""
        total = hashlib.sha256()
        for name, tensor in sorted(self.weights.items()):
            total.update(f"{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n".encode())
            total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()[:32]


def from_file(path: Path) -> Pretrained:
    """A state_dict as safetensors, or as torch.save writes it, by itself or in a checkpoint; no pickle is ever run.

    Raises:
        DataError: the file is missing or damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own
        reason = first_line(error)
        if "weights_only" in reason or "Weights only" in reason:
            reason = "it holds more than weights, which is never loaded: it could run any code; save state_dict() alone"
        raise DataError(f"--pretrained: {path} cannot be read: {reason}") from None
    for name in NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise DataError(f"--pretrained: {path} holds no state_dict, which maps names to tensors")
    return Pretrained(str(path), {str(name).removeprefix(PREFIX): tensor for name, tensor in content.items()})


def from_model(source: str, state: Mapping[str, torch.Tensor], classes: tuple[str, ...]) -> Pretrained:
    """Those of an exported model, by the `state` of its program.

    Raises ModelError if it is no model of this package.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "preprocessing": {}}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor.detach().cpu()
    if parts["preprocessing"].keys() != {"scale", "shift"} or not parts["network"]:
        raise ModelError(f"--pretrained: {source} was not exported by cifar-mlflow: its weights have other names")
    return Pretrained(source, parts["network"], parts["preprocessing"], classes)


def of_torchvision(config: TrainingConfig) -> Pretrained:
    """torchvision's default weights of the network that `config` names, from the user's cache or its server.

    Raises:
        ConfigurationError: torchvision has no such network.
        DataError: the weights are not on this machine, and cannot be downloaded.
    """
    from torchvision import models

    weights = models.get_model_weights(torchvision_models.name_of(config)).DEFAULT
    path = _downloaded(weights.url)
    transforms = weights.transforms()
    preprocessing = Preprocessing(transforms.mean, transforms.std).state_dict()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return Pretrained(f"torchvision, {weights}", state, preprocessing)


def _downloaded(url: str) -> Path:
    """The file in the user's cache, downloaded to it with torch's bar, and checked by the digest in its name."""
    from filelock import FileLock

    directory, name = cache_directory() / "weights", url.rpartition("/")[2]
    path = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"), socket_timeout(DOWNLOAD_TIMEOUT):
            if not path.exists():
                torch.hub.download_url_to_file(url, str(path), _digest_in(name))
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or first_line(error)
        raise DataError(
            f"--pretrained: the weights are not on this machine and could not be downloaded from {url} ({reason}).\n"
            f"Put that file at {path}, or name another by --pretrained."
        ) from None
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(_digest_in(name)):
        raise DataError(f"--pretrained: {path} is not the file of {url} (its sha256 differs); delete it")
    return path


def _digest_in(name: str) -> str:
    """The first digits of the file's sha256, as torchvision has them in its name: resnet18-f37072fd.pth."""
    return Path(name).stem.rpartition("-")[2]
