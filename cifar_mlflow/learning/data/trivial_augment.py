"""TrivialAugment (Müller & Hutter, 2021), in its wide form, for a batch at once: one operation an image.

As torchvision's TrivialAugmentWide, which takes one operation for a whole batch.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

STRENGTHS = 31
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDED = ("brightness", "color", "contrast", "sharpness")
OPERATIONS = ("identity", *GEOMETRIC, *BLENDED, "posterize", "solarize", "autocontrast", "equalize")
LARGEST = {"shear_x": 0.99, "shear_y": 0.99, "translate_x": 32.0, "translate_y": 32.0, "rotate": 135.0} | dict.fromkeys(
    BLENDED, 0.99
)


class Choices(NamedTuple):
    """For each image an operation, as a position in `OPERATIONS`, a strength from 0 to 1, and its sign, 1 or -1."""

    operations: torch.Tensor
    strengths: torch.Tensor
    signs: torch.Tensor

    def at(self, positions: slice) -> "Choices":
        return Choices(*(each[positions] for each in self))


def draw(images: int, generator: torch.Generator, device: torch.device) -> Choices:
    operations = torch.randint(len(OPERATIONS), (images,), generator=generator)
    strengths = torch.randint(STRENGTHS, (images,), generator=generator) / (STRENGTHS - 1)
    signs = 1.0 - 2.0 * torch.randint(2, (images,), generator=generator)
    return Choices(operations.to(device), strengths.to(device), signs.to(device))


def apply(pixels: torch.Tensor, choices: Choices) -> torch.Tensor:
    """`pixels` uint8 (n, height, width, channels), each changed as chosen."""
    images = pixels.permute(0, 3, 1, 2).contiguous()
    changed = images.clone()
    largest = torch.tensor([LARGEST.get(name, 1.0) for name in OPERATIONS], device=pixels.device)
    amounts = choices.strengths * choices.signs * largest[choices.operations]
    moved = torch.zeros_like(choices.operations, dtype=torch.bool)
    for place, name in enumerate(OPERATIONS):
        chosen = choices.operations == place
        if name in GEOMETRIC:
            moved |= chosen
        elif name != "identity" and chosen.any():
            changed[chosen] = _recolored(name, images[chosen], amounts[chosen], choices.strengths[chosen])
    if moved.any():
        changed[moved] = _moved(images[moved], choices.operations[moved], amounts[moved])
    return changed.permute(0, 2, 3, 1).contiguous()


def _moved(images: torch.Tensor, operations: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
    """Sheared, shifted or turned, each pixel taken from the nearest; black where there is none.

    Coordinates are pixels from the center. Shears leave the upper left corner where it is.
    """
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) - height / 2 + 0.5)[None, :, None]
    columns = (torch.arange(width, device=images.device) - width / 2 + 0.5)[None, None, :]
    amount = {
        name: torch.where(operations == OPERATIONS.index(name), amounts, 0.0)[:, None, None] for name in GEOMETRIC
    }
    angle = amount["rotate"] * (math.pi / 180)
    x = angle.cos() * columns - angle.sin() * rows + amount["shear_x"] * (rows + height / 2)
    y = angle.sin() * columns + angle.cos() * rows + amount["shear_y"] * (columns + width / 2)
    grid = torch.stack(
        ((x - amount["translate_x"].trunc()) * 2 / width, (y - amount["translate_y"].trunc()) * 2 / height), 3
    )
    sampled = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return sampled.to(torch.uint8)


def _recolored(name: str, images: torch.Tensor, amounts: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    from torchvision.transforms.v2 import functional

    if name in BLENDED:
        without: torch.Tensor = {
            "brightness": functional.adjust_brightness,
            "color": functional.adjust_saturation,
            "contrast": functional.adjust_contrast,
            "sharpness": functional.adjust_sharpness,
        }[name](images, 0.0)
        start = without.float()
        blended = start + (1 + amounts[:, None, None, None]) * (images.float() - start)
        return blended.clamp(0, 255).to(torch.uint8)
    if name == "posterize":
        zeroed = (6 * strengths).round().int()  # of the eight bits
        kept: torch.Tensor = (256 - 2**zeroed).to(torch.uint8)
        return images & kept[:, None, None, None]
    if name == "solarize":
        return torch.where(images >= 255 * (1 - strengths[:, None, None, None]), 255 - images, images)
    changed: torch.Tensor = getattr(functional, name)(images)
    return changed
