"""Random changes to training images, drawn for a whole epoch at once and applied to a whole batch at once."""

import torch
import torch.nn.functional as F

from cifar_mlflow.config.rules import SHIFTING
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning.data import rectangles, trivial_augment


class Augmentation:
    """What to do to the images of each step of one epoch, by their positions in its order."""

    def __init__(
        self,
        config: TrainingConfig,
        epoch: int,
        order: torch.Tensor,
        generator: torch.Generator,
        size: tuple[int, int] = (32, 32),
    ) -> None:
        """Draws for the `order` int64 (n) in which the `epoch`, from 1, goes through the images, of this `size`.

        On the device of `order`; `generator` is one of the CPU.
        """
        self._flips = self._corners = self._crops = self._erased = self._operations = None
        self._shift, self._reflect = config.shift, config.padding == "reflect"
        images, device = len(order), order.device
        if config.augmentation != "none" and config.alternate_flip:
            # An image's own first side is the same in all epochs, and between two processes.
            sides = torch.rand(images, generator=torch.Generator().manual_seed(config.seed)) < 0.5
            self._flips = (sides ^ (epoch % 2 == 0)).to(device)[order]
        elif config.augmentation != "none":
            self._flips = (torch.rand(images, generator=generator) < 0.5).to(device)
        if config.augmentation in SHIFTING:
            self._corners = torch.randint(0, 2 * self._shift + 1, (images, 2), generator=generator).to(device)
        if config.augmentation == "random_resized_crop":
            self._crops = rectangles.draw_crops(images, size, generator).to(device)
        elif config.augmentation == "random_erasing":
            self._erased = rectangles.draw_erased(images, size, generator).to(device)
        elif config.augmentation == "trivial_augment":
            self._operations = trivial_augment.draw(images, generator, device)

    def apply(self, pixels: torch.Tensor, positions: slice) -> torch.Tensor:
        """`pixels` uint8 (n, height, width, channels), changed as drawn for these `positions` of the epoch."""
        if self._flips is not None:
            pixels = torch.where(self._flips[positions, None, None, None], pixels.flip(2), pixels)
        if self._corners is not None:
            pixels = self._cropped(pixels, self._corners[positions])
        if self._crops is not None:
            pixels = rectangles.cropped(pixels, self._crops[positions])
        if self._erased is not None:
            pixels = rectangles.erased(pixels, self._erased[positions])
        if self._operations is not None:
            pixels = trivial_augment.apply(pixels, self._operations.at(positions))
        return pixels

    def _cropped(self, pixels: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        """Each image cut out of its padded self, with the upper left corner at its row and column of `corners`."""
        n, height, width, channels = pixels.shape
        padded = padded_by(pixels, self._shift, self._reflect)
        # All places where an image can be cut out, as a view that copies nothing.
        image, row, column, _ = padded.stride()
        places = 2 * self._shift + 1
        cuts = padded.as_strided(
            (n, places, places, height, width * channels), (image, row, column, row, 1), padded.storage_offset()
        )
        top, left = corners.unbind(1)
        cropped = cuts[torch.arange(n, device=pixels.device), top, left]
        return cropped.view(n, height, width, channels)


def refuse_small(config: TrainingConfig, image_shape: tuple[int, int, int]) -> None:
    """Raises ConfigurationError if a shift could leave nothing of images of this shape."""
    side = min(image_shape[:2])
    if config.augmentation in SHIFTING and config.shift >= side:
        raise ConfigurationError(f"--shift: {config.shift} is refused: the images have {side} pixels a side")


def padded_by(pixels: torch.Tensor, shift: int, reflect: bool) -> torch.Tensor:
    """`pixels` (n, height, width, channels) with `shift` more on each side: black, or mirrored at the edge."""
    if not reflect:
        return F.pad(pixels, (0, 0, shift, shift, shift, shift))
    for side in (1, 2):
        size = pixels.shape[side]
        before, after = pixels.narrow(side, 1, shift), pixels.narrow(side, size - 1 - shift, shift)
        pixels = torch.cat((before.flip(side), pixels, after.flip(side)), side)
    return pixels
