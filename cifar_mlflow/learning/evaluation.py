"""Running a network over a whole split."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from cifar_mlflow.learning.data.augmentation import padded_by
from cifar_mlflow.learning.data.datasets import LabeledImages

BATCH = 100  # on two cores as fast as more, which would only take more memory
TINY = 1e-30  # a probability of zero has a logarithm then


class Scores(NamedTuple):
    """What a network is worth on labelled images: mean cross-entropy; all else per cent.

    Balanced accuracy is the mean recall of the classes that have images; the recall of one that has none is NaN.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    recalls: tuple[float, ...]


NOT_SCORED = Scores(math.nan, math.nan, math.nan, ())


@torch.inference_mode()
def scores(network: Callable[[torch.Tensor], torch.Tensor], images: LabeledImages, classes: int) -> Scores:
    """Those of `network`, which maps uint8 images to logits (n, classes), over every image."""
    loss = torch.zeros((), device=images.labels.device)
    correct = []
    for pixels, labels in _batches(images):
        logits = network(pixels)
        loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        correct.append(logits.argmax(1) == labels)
    told = torch.cat(correct).cpu()
    labels = images.labels.cpu()
    there = labels.bincount(minlength=classes)
    recalls = labels[told].bincount(minlength=classes) / there.double()
    return Scores(
        loss.item() / len(images),
        100 * told.sum().item() / len(images),
        100 * recalls[there > 0].mean().item(),
        tuple((100 * recalls).tolist()),
    )


@torch.inference_mode()
def probabilities(model: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> np.ndarray:
    """Class probabilities float32 (n, classes) of one batch of uint8 images (n, height, width, channels)."""
    answer: np.ndarray = model(pixels).float().cpu().numpy()
    return answer


def predict(
    model: Callable[[torch.Tensor], torch.Tensor],
    images: LabeledImages,
    on_batch: Callable[[int], object] = lambda images: None,
    *,
    views: int = 1,
) -> np.ndarray:
    """Class probabilities float32 (n, classes); `model` maps uint8 images to probabilities.

    `on_batch` is told the number of images after each batch. With 2 or 6 `views` the model sees each image several
    times, and the logits are averaged (test-time augmentation, weighted as in airbench94).
    """
    parts = []
    for pixels, _ in _batches(images):
        if views == 1:
            parts.append(probabilities(model, pixels))
        else:
            # The logarithms of the probabilities are the logits less a number an image, which softmax takes away.
            logits = [weight * np.log(probabilities(model, view) + TINY) for weight, view in _views(pixels, views)]
            parts.append(torch.from_numpy(np.sum(logits, axis=0)).softmax(1).numpy())
        on_batch(len(pixels))
    return np.concatenate(parts)


def _views(pixels: torch.Tensor, views: int) -> list[tuple[float, torch.Tensor]]:
    """Each view of the images, with its weight: as they are and mirrored; with 6, shifted too, by a pixel each way."""
    both = [pixels, pixels.flip(2)]
    if views == 2:
        return [(1 / 2, view) for view in both]
    height, width = pixels.shape[1:3]
    padded = [padded_by(view, 1, reflect=True) for view in both]
    shifted = [view[:, start : start + height, start : start + width] for view in padded for start in (0, 2)]
    return [(1 / 4, view) for view in both] + [(1 / 8, view.contiguous()) for view in shifted]


def _batches(images: LabeledImages) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(torch.split(images.pixels, BATCH), torch.split(images.labels, BATCH), strict=True)
