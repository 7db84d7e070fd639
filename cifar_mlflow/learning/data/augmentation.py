"""Random changes to training images, drawn for a whole epoch at once and applied to a whole batch at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from cifar_mlflow.config.rules import SHIFTING
from cifar_mlflow.config.training import TrainingConfig

# What torchvision does to an image, beside the flip and the shift, by the augmentation of which it is a part.
OF_TORCHVISION = {
    "random_resized_crop": "RandomResizedCrop",
    "random_erasing": "RandomErasing",
    "trivial_augment": "TrivialAugmentWide",
}


class Augmentation:
    """What to do to the images of each step of one epoch, by their positions in its order."""

    def __init__(self, config: TrainingConfig, epoch: int, order: torch.Tensor, generator: torch.Generator) -> None:
        """Draws for the `order` int64 (n) in which the `epoch`, from 1, goes through the images.

        On the device of `order`; `generator` is one of the CPU.
        """
        self._flips = self._corners = self._seeds = None
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
        if config.augmentation in OF_TORCHVISION:
            self._name = config.augmentation
            self._seeds = torch.randint(0, 2**63 - 1, (images,), generator=generator).tolist()

    def apply(self, pixels: torch.Tensor, positions: slice) -> torch.Tensor:
        """`pixels` uint8 (n, height, width, channels), changed as drawn for these `positions` of the epoch."""
        if self._flips is not None:
            pixels = torch.where(self._flips[positions, None, None, None], pixels.flip(2), pixels)
        if self._corners is not None:
            pixels = self._cropped(pixels, self._corners[positions])
        if self._seeds is not None:
            pixels = each_by_its_seed(pixels, self._seeds[positions], self._name)
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


def padded_by(pixels: torch.Tensor, shift: int, reflect: bool) -> torch.Tensor:
    """`pixels` (n, height, width, channels) with `shift` more on each side: black, or mirrored at the edge."""
    if not reflect:
        return F.pad(pixels, (0, 0, shift, shift, shift, shift))
    for side in (1, 2):
        size = pixels.shape[side]
        before, after = pixels.narrow(side, 1, shift), pixels.narrow(side, size - 1 - shift, shift)
        pixels = torch.cat((before.flip(side), pixels, after.flip(side)), side)
    return pixels


def each_by_its_seed(pixels: torch.Tensor, seeds: Sequence[int], name: str) -> torch.Tensor:
    """`pixels` uint8 (n, height, width, channels), each changed by torchvision's transform under a seed of its own.

    For a whole batch torchvision would draw once.
    """
    from torchvision.transforms import v2

    options = {"size": pixels.shape[1:3], "antialias": True} if name == "random_resized_crop" else {}
    transform = getattr(v2, OF_TORCHVISION[name])(**options)
    images = pixels.permute(0, 3, 1, 2)
    with torch.random.fork_rng(devices=[]):  # the transforms draw from the processor's generator
        changed = []
        for image, seed in zip(images, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            changed.append(transform(image))
    return torch.stack(changed).permute(0, 2, 3, 1).contiguous()
