"""Random rectangles of images: cut out and scaled to the whole, or erased; for a batch at once, each image its own.

They are drawn as torchvision's RandomResizedCrop and RandomErasing draw them, which take one for a whole batch.
"""

import math

import torch

TRIES = 10  # to draw one that fits into the image
# The shares of the image's area, and the ratios of width to height.
CROPPED = ((0.08, 1.0), (3 / 4, 4 / 3))
ERASED = ((0.02, 0.33), (0.3, 3.3))
ERASED_SHARE = 0.5  # of the images


def draw_crops(images: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """What to cut out of each image of this size (height, width): top, left, height and width, int64 (n, 4).

    It is the whole image where none of the tries fits.
    """
    drawn, fits = _draw(images, *size, *CROPPED, generator)
    drawn[~fits] = torch.tensor((0, 0, *size))
    return drawn


def draw_erased(images: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """As `draw_crops`, what to erase: of some images nothing, and never from one side to the other."""
    height, width = size
    drawn, fits = _draw(images, height - 1, width - 1, *ERASED, generator)
    drawn[~fits | (torch.rand(images, generator=generator) >= ERASED_SHARE)] = 0
    return drawn


def _draw(
    images: int,
    height: int,
    width: int,
    shares: tuple[float, float],
    ratios: tuple[float, float],
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first of the tries that is at most so high and wide, and whether there is one."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(images, TRIES).uniform_(low, high, generator=generator)

    area, ratio = height * width * uniform(*shares), uniform(math.log(ratios[0]), math.log(ratios[1])).exp()
    heights, widths = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide = (lengths.gather(1, first).squeeze(1) for lengths in (heights, widths))
    free = torch.stack((height - tall, width - wide), 1).clamp(min=0)
    corners = (torch.rand(images, 2, generator=generator) * (free + 1)).long()
    return torch.stack((*corners.unbind(1), tall, wide), 1), fits.any(1)


def erased(pixels: torch.Tensor, rectangles: torch.Tensor) -> torch.Tensor:
    """`pixels` (n, height, width, channels), black within each image's rectangle."""
    top, left, tall, wide = rectangles[:, :, None].unbind(1)
    rows, columns = (torch.arange(size, device=pixels.device) for size in pixels.shape[1:3])
    within = ((rows >= top) & (rows < top + tall))[:, :, None] & ((columns >= left) & (columns < left + wide))[:, None]
    return pixels.masked_fill(within[..., None], 0)


def cropped(pixels: torch.Tensor, rectangles: torch.Tensor) -> torch.Tensor:
    """Each image's rectangle, scaled to the size of `pixels` uint8 (n, height, width, channels).

    By linear interpolation, antialiased, as torchvision's resized_crop: rows and columns are weighted one after the
    other, which is a product of matrices for all images.
    """
    images, height, width, channels = pixels.shape
    top, left, tall, wide = rectangles.unbind(1)
    scaled = _shares(top, tall, height) @ pixels.float().flatten(2)
    scaled = _shares(left, wide, width)[:, None] @ scaled.view(images, height, width, channels)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _shares(start: torch.Tensor, length: torch.Tensor, size: int) -> torch.Tensor:
    """How much of each pixel of a line goes into each pixel of the scaled one: (n, size, size)."""
    scale = (length / size)[:, None, None]
    pixels = torch.arange(size, device=start.device) + 0.5
    begin = start[:, None, None]
    centers = begin + scale * pixels[:, None]
    shares = (1 - (pixels - centers).abs() / scale.clamp(min=1)).clamp(min=0)
    shares = shares * ((pixels > begin) & (pixels < begin + length[:, None, None]))
    return shares / shares.sum(2, keepdim=True)
