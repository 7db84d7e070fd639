"""Network architectures, and the preprocessing that every one of them shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.learning.compiled.convolution import Conv2d
from cifar_mlflow.learning.compiled.layers import Flatten, PReLU, Sequential
from cifar_mlflow.learning.compiled.pooling import MaxPool2d
from cifar_mlflow.learning.networks import own
from cifar_mlflow.learning.networks.fast import FastNetwork

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": PReLU,
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Preprocessing(nn.Module):
    """uint8 images (n, height, width, channels) to float32 (n, channels, height, width), channels last in memory."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        means = torch.tensor(mean, dtype=torch.float64).view(1, -1, 1, 1)
        deviations = torch.tensor(deviation, dtype=torch.float64).view(1, -1, 1, 1)
        self.register_buffer("scale", (1 / (255 * deviations)).float())
        self.register_buffer("shift", (-means / deviations).float())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift


def build(config: TrainingConfig, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """A new network from (n, channels, height, width) float32 to (n, classes) logits, freshly initialized.

    `image_shape` is (height, width, channels). The weights are drawn from torch's global random state.

    Raises:
        ConfigurationError: the network cannot be built, or not for images of this shape.
    """
    network: nn.Module
    match config.network:
        case "report_cnn":
            network = _report_cnn(config, classes, image_shape)
        case "fast":
            network = FastNetwork(config, ACTIVATIONS[config.activation], classes, image_shape)
        case _:
            network = own.build(config, classes, image_shape)
    _initialize(network, config.weight_init)
    return network


def _report_cnn(config: TrainingConfig, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The 2020 report's network, as its printed model shows: three convolutions and two linear layers."""
    height, width, channels = image_shape
    activation = ACTIVATIONS[config.activation]

    def convolution(inputs: int, outputs: int, pool: bool) -> list[nn.Module]:
        layers = [Conv2d(inputs, outputs, 3, padding=1), activation(), nn.Dropout2d(config.dropout)]
        if config.batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        return [*layers, MaxPool2d(2)] if pool else layers

    return Sequential(
        *convolution(channels, 16, pool=False),
        *convolution(16, 32, pool=True),
        *convolution(32, 64, pool=True),
        Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 100),
        activation(),
        nn.Dropout(config.dropout),
        *([nn.BatchNorm1d(100)] if config.batch_norm else []),
        nn.Linear(100, classes),
    )


def _initialize(network: nn.Module, scheme: str) -> None:
    """Kaiming (He et al., 2015) or Xavier (Glorot & Bengio, 2010) normal weights and zero biases."""
    if scheme == "default":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.requires_grad:
            if scheme == "kaiming":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
