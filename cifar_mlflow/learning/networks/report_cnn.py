"""The 2020 report's network, as its printed model shows: three convolutions and two linear layers."""

from collections.abc import Callable

from torch import nn

from cifar_mlflow.config.training import TrainingConfig


def report_cnn(
    config: TrainingConfig, activation: Callable[[], nn.Module], classes: int, image_shape: tuple[int, int, int]
) -> nn.Module:
    """(n, channels, height, width) float32 to (n, classes) logits; `image_shape` is (height, width, channels)."""
    height, width, channels = image_shape

    def convolution(inputs: int, outputs: int, pool: bool) -> list[nn.Module]:
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1), activation(), nn.Dropout2d(config.dropout)]
        if config.batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        return [*layers, nn.MaxPool2d(2)] if pool else layers

    return nn.Sequential(
        *convolution(channels, 16, pool=False),
        *convolution(16, 32, pool=True),
        *convolution(32, 64, pool=True),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 100),
        activation(),
        nn.Dropout(config.dropout),
        *([nn.BatchNorm1d(100)] if config.batch_norm else []),
        nn.Linear(100, classes),
    )
