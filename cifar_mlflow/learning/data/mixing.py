"""Two images of a batch as one, with both their labels."""

from collections.abc import Callable

import torch

from cifar_mlflow.config.training import TrainingConfig

# Of (pixels, labels) what the network is to see, and what it is to answer.
Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def mixing(config: TrainingConfig, classes: int) -> Mix | None:
    """torchvision's MixUp (Zhang et al., 2018) or CutMix (Yun et al., 2019), as `config` says; None for neither.

    It takes uint8 images (n, height, width, channels) and labels int64 (n), and gives such images, of mixup with
    fractions, as float32, and float32 targets (n, classes), each of which adds up to one. How much of each image is
    drawn for the whole batch from torch's global random state, uniformly.
    """
    if config.mix == "none":
        return None
    from torchvision.transforms import v2

    kind = v2.MixUp if config.mix == "mixup" else v2.CutMix
    transform = kind(alpha=1.0, num_classes=classes)

    def mix(pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = pixels.permute(0, 3, 1, 2)
        mixed, targets = transform(images.float() if config.mix == "mixup" else images, labels)
        return mixed.permute(0, 2, 3, 1), targets

    return mix
