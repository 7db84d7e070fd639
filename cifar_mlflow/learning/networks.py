"""Network architectures, and the preprocessing that every one of them shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cifar_mlflow.config import TrainingConfig
from cifar_mlflow.learning import user_network
from cifar_mlflow.learning.fast_network import FastNetwork


class _FastPReLU(torch.autograd.Function):
    """PReLU with one slope, on the CPU: torch's own backward kernel takes more than twice as long."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs, slope)
        return torch.nn.functional.leaky_relu(inputs, slope.item())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, slope = ctx.saved_tensors
        # ELU's gradient with these constants is `gradient * min(inputs, 0)`, in one pass.
        products = torch.ops.aten.elu_backward(gradients[0], 1.0, 0.0, 1.0, True, inputs)
        # torch sums bfloat16 in float32 and rounds the result alone; asked for float32, it would copy everything first.
        slope_gradient = products.sum().to(slope.dtype).reshape(slope.shape)
        return torch.ops.aten.leaky_relu_backward(gradients[0], inputs, slope.item(), False), slope_gradient


class PReLU(nn.PReLU):
    """torch's PReLU (He et al., 2015) with a single slope; the same function, trained faster on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.device.type == "cpu":
            activated: torch.Tensor = _FastPReLU.apply(input, self.weight)
            return activated
        return super().forward(input)


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


class Flatten(nn.Flatten):
    """torch's Flatten, whose gradient takes on the memory order of the images, which the layers before it need."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.requires_grad and input.is_contiguous(memory_format=torch.channels_last):
            input.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return super().forward(input)


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
            network = user_network.build(config, classes, image_shape)
    _initialize(network, config.weight_init)
    return network


def _report_cnn(config: TrainingConfig, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The 2020 report's network, as its printed model shows: three convolutions and two linear layers."""
    height, width, channels = image_shape
    activation = ACTIVATIONS[config.activation]

    def convolution(inputs: int, outputs: int, pool: bool) -> list[nn.Module]:
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1), activation(), nn.Dropout2d(config.dropout)]
        if config.batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        return [*layers, nn.MaxPool2d(2)] if pool else layers

    return nn.Sequential(
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
