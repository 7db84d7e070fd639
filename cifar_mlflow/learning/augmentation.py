"""Random changes to training images, drawn for a whole epoch at once and applied to a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

SHIFT = 4  # pixels


@dataclass(frozen=True)
class Augmentation:
    """One epoch's draws for every position in its order of images: whether to flip, and where to crop."""

    flips: torch.Tensor | None
    offsets: torch.Tensor | None

    @classmethod
    def draw(cls, kind: str, images: int, generator: torch.Generator, device: torch.device) -> Augmentation:
        """Draws for `images` positions of an epoch. `kind` is none, flip or flip_crop."""
        flips = offsets = None
        if kind in ("flip", "flip_crop"):
            flips = (torch.rand(images, generator=generator) < 0.5).to(device)
        if kind == "flip_crop":
            offsets = torch.randint(0, 2 * SHIFT + 1, (images, 2), generator=generator).to(device)
        return cls(flips, offsets)

    def apply(self, pixels: torch.Tensor, positions: slice) -> torch.Tensor:
        """`pixels` uint8 (n, height, width, channels), changed as drawn for these `positions` of the epoch."""
        if self.flips is not None:
            pixels = torch.where(self.flips[positions, None, None, None], pixels.flip(2), pixels)
        if self.offsets is not None:
            n, height, width, _ = pixels.shape
            padded = F.pad(pixels, (0, 0, SHIFT, SHIFT, SHIFT, SHIFT))
            top, left = self.offsets[positions].unbind(1)
            rows = (top[:, None] + torch.arange(height, device=pixels.device))[:, :, None]
            columns = (left[:, None] + torch.arange(width, device=pixels.device))[:, None, :]
            pixels = padded[torch.arange(n, device=pixels.device)[:, None, None], rows, columns]
        return pixels
