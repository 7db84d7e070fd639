"""Running a network over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from cifar_mlflow.learning.data import Images

BATCH = 100  # on two cores as fast as more, which would only take more memory


@torch.inference_mode()
def loss_and_accuracy(network: Callable[[torch.Tensor], torch.Tensor], images: Images) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (per cent) over every image; `network` maps uint8 images to logits."""
    loss = torch.zeros((), device=images.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.labels.device)
    for pixels, labels in _batches(images):
        logits = network(pixels)
        loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    return loss.item() / len(images), 100 * correct.item() / len(images)


@torch.inference_mode()
def probabilities(model: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> np.ndarray:
    """Class probabilities float32 (n, classes) of one batch of uint8 images (n, height, width, channels)."""
    answer: np.ndarray = model(pixels).float().cpu().numpy()
    return answer


def predict(
    model: Callable[[torch.Tensor], torch.Tensor], images: Images, on_batch: Callable[[int], object] | None = None
) -> np.ndarray:
    """Class probabilities float32 (n, classes); `model` maps uint8 images to probabilities.

    `on_batch` is told the number of images after each batch.
    """
    parts = []
    for pixels, _ in _batches(images):
        parts.append(probabilities(model, pixels))
        if on_batch is not None:
            on_batch(len(pixels))
    return np.concatenate(parts)


def _batches(images: Images) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, len(images), BATCH):
        yield images.pixels[start : start + BATCH], images.labels[start : start + BATCH]
