"""Training images as the network gets them, to look at."""

import torch

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.learning.data.augmentation import Augmentation, refuse_small
from cifar_mlflow.learning.data.datasets import Dataset
from cifar_mlflow.learning.data.mixing import mixing

IMAGES = 32


def preview(config: TrainingConfig, data: Dataset) -> torch.Tensor:
    """Some training images after what is random, uint8 (n, height, width, channels).

    They are drawn by the seed, but are not those of a batch; the training's own random state stays as it is.

    Raises ConfigurationError if the images are smaller than the shift.
    """
    refuse_small(config, data.image_shape)
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(data.train), generator=generator)[:IMAGES]
    pixels, labels = data.train.pixels[chosen], data.train.labels[chosen]
    changes = Augmentation(config, 1, torch.arange(len(chosen)), generator, data.image_shape[:2])
    pixels = changes.apply(pixels, slice(0, len(chosen)))
    if (mix := mixing(config, len(data.classes))) is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            pixels, _ = mix(pixels, labels)
    return pixels.round().to(torch.uint8) if pixels.is_floating_point() else pixels
