"""A network for short trainings, in the manner of airbench94 (Jordan, 2024, arXiv 2404.00498)."""

from collections.abc import Callable

import torch
from torch import nn

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError

LEAST_SIZE = 9  # pixels that leave one after a 2 x 2 convolution and three poolings
WHITENED_IMAGES = 5000
WHITENED_PATCHES = WHITENED_IMAGES * 31**2  # what so many images of CIFAR-10 have; of larger ones, fewer are enough
EIGENVALUE_FLOOR = 5e-4  # of the patches' covariance, so that noise is not blown up
BATCH_NORM_MOMENTUM = 0.12
# With these the linear layer learns well at the rate of the convolutions.
HEAD_DEVIATION = 1 / 74
HEAD_GAIN = 74.0


class FastNetwork(nn.Module):
    """Whitening, three blocks of two convolutions, and a linear layer.

    (n, channels, height, width) float32 to (n, classes) logits; at least `LEAST_SIZE` pixels a side.
    """

    def __init__(
        self, config: TrainingConfig, activation: Callable[[], nn.Module], classes: int, image_shape: tuple[int, ...]
    ) -> None:
        """Raises ConfigurationError if the images are too small."""
        super().__init__()
        height, width, channels = image_shape
        if min(height, width) < LEAST_SIZE:
            raise ConfigurationError(
                f"--network: fast takes images of at least {LEAST_SIZE} x {LEAST_SIZE} pixels, not {height} x {width}"
            )
        # Each direction in which the 2 x 2 patches differ, and its opposite.
        self.whitening = nn.Conv2d(channels, 2 * 4 * channels, 2)
        self.whitening.weight.requires_grad_(False)
        first, second, third = config.widths
        self.blocks = nn.Sequential(
            activation(),
            *_block(self.whitening.out_channels, first, activation),
            *_block(first, second, activation),
            *_block(second, third, activation),
            nn.MaxPool2d(((height - 1) // 8, (width - 1) // 8)),
            nn.Flatten(),
            nn.Dropout(config.dropout),
        )
        self.head = nn.Linear(third, classes, bias=False)
        nn.init.normal_(self.head.weight, std=HEAD_DEVIATION)
        self.gain = HEAD_GAIN / third

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.blocks(self.whitening(images))) * self.gain
        return logits

    def whitened(self, labels: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Which of the training images, of which `labels` has the classes (n), `whiten` is to be given: their indices.

        The first ones, if every class is among them; else, as in a dataset that is sorted by class, some of all parts.
        """
        count = max(1, min(len(labels), WHITENED_IMAGES, WHITENED_PATCHES // ((height - 1) * (width - 1))))
        first = torch.arange(count)
        has_all = labels[:count].bincount().count_nonzero() == labels.bincount().count_nonzero()
        return first if has_all else first * len(labels) // count

    @torch.no_grad()
    def whiten(self, images: torch.Tensor) -> None:
        """Sets the first convolution so that over `images` (n, channels, height, width) its outputs are uncorrelated.

        Its filters are the eigenvectors of the covariance of all 2 x 2 patches, each divided by its deviation.
        """
        shape = self.whitening.weight.shape[1:]
        windows = images.unfold(2, shape[1], 1).unfold(3, shape[2], 1)
        patches = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, shape.numel())
        # On the CPU, so that all machines start from the same signs and order, and Apple's GPUs know no float64.
        covariance = (patches.T @ patches / len(patches)).cpu().double()
        values, vectors = torch.linalg.eigh(covariance)
        filters = (vectors / (values + EIGENVALUE_FLOOR).sqrt()).T.reshape(-1, *shape).float()
        self.whitening.weight.copy_(torch.cat((filters, -filters)))


def _block(inputs: int, outputs: int, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Pooling comes before normalization, which then has a quarter of the pixels to do."""
    return [
        _convolution(inputs, outputs),
        nn.MaxPool2d(2),
        _normalization(outputs),
        activation(),
        _convolution(outputs, outputs),
        _normalization(outputs),
        activation(),
    ]


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Its first `inputs` filters start as the identity (Dirac), so that each layer passes on what it gets."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:inputs])
    return convolution


def _normalization(channels: int) -> nn.BatchNorm2d:
    """Only the bias is trained: the next layer's weights can take over the scale."""
    normalization = nn.BatchNorm2d(channels, eps=1e-12, momentum=BATCH_NORM_MOMENTUM)
    normalization.weight.requires_grad_(False)
    return normalization
