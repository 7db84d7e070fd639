"""What every network has before it: from the bytes of images to standardized numbers."""

from collections.abc import Sequence

import torch
from torch import nn


class Preprocessing(nn.Module):
    """uint8 images (n, height, width, channels) to float32 (n, channels, height, width), by default channels last."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        mean: Sequence[float],
        deviation: Sequence[float],
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        super().__init__()
        self._is_contiguous = memory_format == torch.contiguous_format
        means, deviations = (torch.tensor(each, dtype=torch.float64).view(1, -1, 1, 1) for each in (mean, deviation))
        self.register_buffer("scale", (1 / (255 * deviations)).float())
        self.register_buffer("shift", (-means / deviations).float())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        return images.contiguous() if self._is_contiguous else images
