"""torchvision's classifiers by their names, with a last layer for the classes, fitted to small images."""

from typing import Any

from torch import nn

from cifar_mlflow.config.training import TORCHVISION, TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import did_you_mean

CHANNELS = 3  # of an image; a gray one is repeated
CHANGED = "changed_for_small_images"  # an attribute of the network: in words
SMALL = 64  # pixels a side, below which a network does not begin with making images smaller


def name_of(config: TrainingConfig) -> str:
    """What torchvision calls the network that `config` names.

    Raises ConfigurationError if it has none of that name.
    """
    from torchvision import models

    name = config.network.removeprefix(TORCHVISION)
    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, known, TORCHVISION) or f" (it has {', '.join(known)})"
        raise ConfigurationError(f"--network: torchvision has no classifier {name!r}{hint}", "options")
    return name


def build(config: TrainingConfig, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The network from (n, 3, height, width) float32 to (n, classes) logits, freshly initialized by torchvision."""
    from torchvision import models

    name, (height, width, _) = name_of(config), image_shape
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = height
    elif name == "maxvit_t":
        options["input_size"] = (height, width)
    elif name in ("googlenet", "inception_v3"):
        # What torchvision does by default, with a warning that it may not always; with its weights, their scale too.
        options |= {"init_weights": True, "transform_input": config.pretrained == "default"}
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    if min(height, width) < SMALL:
        _keep_size(network)
    return network


def fitted(network: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """What fits the network to images of this shape (height, width, channels); empty if nothing has to."""
    gray = ["gray images repeated in 3 channels"] if image_shape[2] == 1 else []
    return "; ".join([*getattr(network, CHANGED, []), *gray])


def _keep_size(network: nn.Module) -> None:
    """Lets images keep their size at the beginning, where these networks make them up to four times smaller.

    The first convolution steps by one pixel, and a pooling right behind it is left out. No weight changes its shape,
    so that what was learned from larger images fits. What cuts an image into patches stays as it is.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    (name, first), *behind = layers
    if not isinstance(first, nn.Conv2d) or not 1 < first.stride[0] < first.kernel_size[0]:
        return
    changed = [f"{name} steps by 1 pixel instead of {first.stride[0]}"]
    first.stride = (1, 1)
    if behind and isinstance(behind[0][1], nn.MaxPool2d):
        changed.append(f"{behind[0][0]} is left out")
        network.set_submodule(behind[0][0], nn.Identity())
    setattr(network, CHANGED, changed)
