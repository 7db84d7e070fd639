"""A network that starts from other weights than random ones: what of them fits, and what of it is trained."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from cifar_mlflow.config.training import TORCHVISION, TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning import hardware
from cifar_mlflow.learning.data.datasets import Dataset
from cifar_mlflow.learning.networks import build, torchvision_models
from cifar_mlflow.learning.networks.preprocessing import Preprocessing
from cifar_mlflow.learning.networks.pretrained import Pretrained

NAMES_TOLD = 8
COUNTER = "num_batches_tracked"  # of batch norm, which old files lack; it counts for nothing


@dataclass(frozen=True)
class Start:
    """The names of the `head`'s parameters, the `frozen` normalizations, and what was `told` of the weights.

    The names are of use, and there, only where the head is treated otherwise than the backbone.
    """

    head: frozenset[str] = frozenset()
    frozen: list[nn.Module] = field(default_factory=list)
    told: str = ""


def start(config: TrainingConfig, network: nn.Module, data: Dataset, pretrained: Pretrained | None) -> Start:
    """Gives the network its first weights, if they are not those it has, and freezes what is not to be trained.

    Frozen normalizations must be kept in evaluation mode. Raises ConfigurationError if the weights do not fit.
    """
    if pretrained is None and config.freeze == "none" and config.backbone_rate == 1:
        return Start()
    head = head_of(config, network, len(data.classes), data.image_shape)
    told = start_from(pretrained, network, head, data.classes) if pretrained else ""
    return Start(head, freeze(network, head) if config.freeze == "backbone" else [], told)


def head_of(
    config: TrainingConfig, network: nn.Module, classes: int, image_shape: tuple[int, int, int]
) -> frozenset[str]:
    """The names of the parameters whose shape depends on the number of classes; the others are the backbone's.

    Whatever form a last layer has, so has that of a network for one class more.
    """
    with hardware.settings_kept():
        if config.network.startswith(TORCHVISION):
            try:
                with torch.device("meta"):  # of which a large network takes no memory
                    other = torchvision_models.build(config, classes + 1, image_shape)
            except NotImplementedError:  # it computes with tensors how large it is
                other = torchvision_models.build(config, classes + 1, image_shape)
        else:
            other = build.build(config, classes + 1, image_shape)
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    return frozenset(name for name, tensor in network.state_dict().items() if tensor.shape != shapes.get(name))


def start_from(pretrained: Pretrained, network: nn.Module, head: frozenset[str], classes: tuple[str, ...]) -> str:
    """Gives the network the weights, those of the `head` too if they are of the same `classes`; says what it did.

    Raises:
        ConfigurationError: some of the backbone's are missing, have another shape, or belong nowhere; they are listed.
    """
    state, given = network.state_dict(), pretrained.weights
    fitting = {name: given[name] for name in state if name in given and given[name].shape == state[name].shape}
    takes_head = bool(head) and head <= fitting.keys() and pretrained.classes in (None, classes)
    layers = {name.rpartition(".")[0] for name in head}
    unfit = [
        f"{name}: {_shape(given.get(name))} there, {_shape(tensor)} here"
        for name, tensor in state.items()
        if name not in fitting and name not in head and not name.endswith(COUNTER)
    ]
    unfit += [
        f"{name}: {_shape(tensor)} there, and not in the network"
        for name, tensor in given.items()
        if name not in state and name.rpartition(".")[0] not in layers
    ]
    if unfit:
        more = [f"and {len(unfit) - NAMES_TOLD} more"] if len(unfit) > NAMES_TOLD else []
        told = f"--pretrained: {pretrained.source} is of another network; of its weights do not fit:"
        raise ConfigurationError([told, *unfit[:NAMES_TOLD], *more], "options")
    taken = {name: tensor for name, tensor in fitting.items() if takes_head or name not in head}
    network.load_state_dict({**state, **taken})
    new = "" if takes_head else f" but {', '.join(sorted(head)) or 'nothing'}, for the {len(classes)} classes"
    return f"starts from {pretrained.source}: all weights{new}"


def freeze(network: nn.Module, head: frozenset[str]) -> list[nn.Module]:
    """Leaves the head alone to be trained; returns the normalizations that must stay in evaluation mode for that."""
    for name, parameter in network.named_parameters():
        if name not in head:
            parameter.requires_grad_(False)
    layers = {name.rpartition(".")[0] for name in head}
    modules = dict(network.named_modules())
    return [module for name, module in modules.items() if isinstance(module, _NormBase) and name not in layers]


def preprocessing(
    config: TrainingConfig, data: Dataset, memory_format: torch.memory_format, pretrained: Pretrained | None
) -> Preprocessing:
    """As belongs to the weights; else by the training images, or not at all. For torchvision, with three channels."""
    if pretrained and pretrained.preprocessing:
        channels = pretrained.preprocessing["scale"].numel()
        taken_over = Preprocessing((0.0,) * channels, (1.0,) * channels, memory_format)
        taken_over.load_state_dict(dict(pretrained.preprocessing))
        return taken_over
    means, deviations = data.channel_statistics() if config.normalize else ((0.0,), (1.0,))
    if config.network.startswith(TORCHVISION) and len(means) == 1:
        means, deviations = means * torchvision_models.CHANNELS, deviations * torchvision_models.CHANNELS
    return Preprocessing(means, deviations, memory_format)


def _shape(tensor: torch.Tensor | None) -> str:
    return "nothing" if tensor is None else str(tuple(tensor.shape))
