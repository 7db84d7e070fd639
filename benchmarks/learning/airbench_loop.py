"""The method of airbench94 in plain torch: what gpu.py measures experiments/fast94.yaml against.

Written after the description in Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv
2404.00498. The settings were not held against the author's program, airbench94.py of
github.com/KellerJordan/cifar10-airbench (MIT licence), of which no line stands here: compare them before a figure
is told. Nothing of the package is used, so that the two sides share no more than torch.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

EPOCHS, BATCH = 9.9, 1024
WIDTHS = (64, 256, 256)
# In the units of the description, where momentum and batch size change the size of a step no more.
RATE, DECAY, MOMENTUM = 11.5, 0.0153, 0.85
BIAS_RATE = 64  # of batch normalization, times the rate
SMOOTHING = 0.2
SHIFT = 2
WHITENED_IMAGES, EIGENVALUE_FLOOR, WHITENING_BIAS_EPOCHS = 5000, 5e-4, 3
LOGIT_SCALE = 1 / 9
LOOKAHEAD_STEPS, LOOKAHEAD_DECAY = 5, 0.95**5
SIZE = 32


def network(widths: tuple[int, int, int] = WIDTHS) -> nn.Sequential:
    """(n, 3, 32, 32) to (n, 10), which `LOGIT_SCALE` makes logits. Its first layer still has to be whitened."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 2), nn.GELU()]
    layers[0].weight.requires_grad_(False)
    channels = 24
    for width in widths:
        layers += [_convolution(channels, width), nn.MaxPool2d(2), _normalization(width), nn.GELU()]
        layers += [_convolution(width, width), _normalization(width), nn.GELU()]
        channels = width
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(channels, 10, bias=False))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:inputs])
    return convolution


def _normalization(channels: int) -> nn.BatchNorm2d:
    normalization = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    normalization.weight.requires_grad_(False)
    return normalization


@torch.no_grad()
def _whiten(convolution: nn.Conv2d, images: torch.Tensor) -> None:
    """The filters become the eigenvectors of the 2 x 2 patches' covariance, by their deviations, and the opposites."""
    patches = F.unfold(images.float(), 2).transpose(1, 2).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + EIGENVALUE_FLOOR).sqrt()).T.reshape(12, 3, 2, 2)
    convolution.weight.copy_(torch.cat((filters, -filters)))


def _cut(padded: torch.Tensor, top: torch.Tensor, left: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Of images (n, height, width, channels) those at `top`, `left` (n), some mirrored, as (n, channels, 32, 32)."""
    along = torch.arange(SIZE, device=padded.device)
    rows = top[:, None] + along
    columns = left[:, None] + torch.where(mirrored[:, None], SIZE - 1 - along, along)
    images = torch.arange(len(padded), device=padded.device)
    return padded[images[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Trained:
    """A training from its beginning to its end; `seconds` is what it took, with whitening, without evaluation."""

    def __init__(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        device: torch.device,
        seed: int = 0,
        widths: tuple[int, int, int] = WIDTHS,
        epochs: float = EPOCHS,
    ) -> None:
        """`pixels` uint8 (n, 32, 32, 3), `labels` int64 (n). Half precision on a card, float32 on a processor."""
        torch.manual_seed(seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        begun = time.perf_counter()
        self._kind = torch.half if device.type == "cuda" else torch.float32
        pixels, labels = pixels.to(device), labels.to(device)
        values = pixels.float() / 255
        self._mean, self._deviation = values.mean((0, 1, 2)), values.std((0, 1, 2))
        self._model = network(widths).to(device, self._kind, memory_format=torch.channels_last)
        for layer in self._model:
            if isinstance(layer, nn.BatchNorm2d):
                layer.float()
        _whiten(self._model[0], self._normalized(pixels[:WHITENED_IMAGES]).permute(0, 3, 1, 2))
        self._train(self._padded(pixels, SHIFT), labels, epochs)
        if device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - begun

    def _normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels.float() / 255 - self._mean) / self._deviation).to(self._kind)

    def _padded(self, pixels: torch.Tensor, border: int) -> torch.Tensor:
        """Normalized, and mirrored at the edge by so many pixels: (n, height, width, channels)."""
        images = self._normalized(pixels).permute(0, 3, 1, 2)
        return F.pad(images, (border,) * 4, mode="reflect").permute(0, 2, 3, 1).contiguous()

    def _train(self, padded: torch.Tensor, labels: torch.Tensor, epochs: float) -> None:
        images, device = len(padded), padded.device
        batch = min(BATCH, images)
        an_epoch = images // batch
        steps = math.ceil(epochs * an_epoch)
        optimizer = self._optimizer(batch)
        peak = [0, 0.23 * steps, steps]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: np.interp(step, peak, [0.2, 1, 0.07]))
        fast = [tensor for tensor in self._model.state_dict().values() if tensor.is_floating_point()]
        slow = [tensor.clone() for tensor in fast]
        sides = torch.rand(images, device=device) < 0.5
        self._model.train()
        for step in range(steps):
            epoch, number = divmod(step, an_epoch)
            if number == 0:
                self._model[0].bias.requires_grad_(epoch < WHITENING_BIAS_EPOCHS)
                order = torch.randperm(images, device=device)
                top, left = torch.randint(0, 2 * SHIFT + 1, (2, images), device=device)
                seen = _cut(padded, top, left, sides ^ (epoch % 2 == 1))
            chosen = order[number * batch : (number + 1) * batch]
            logits = self._model(seen[chosen]) * LOGIT_SCALE
            F.cross_entropy(logits, labels[chosen], label_smoothing=SMOOTHING, reduction="sum").backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if (step + 1) % LOOKAHEAD_STEPS == 0:
                _look_ahead(fast, slow, LOOKAHEAD_DECAY * ((step + 1) / steps) ** 3)
        _look_ahead(fast, slow, 1)

    def _optimizer(self, batch: int) -> torch.optim.Optimizer:
        # What Nesterov's momentum makes of a step, for 1,024 images: the loss is their sum.
        whole = 1024 * (1 + 1 / (1 - MOMENTUM))
        rate, decay = RATE / whole, DECAY * batch / whole
        biases = [layer.bias for layer in self._model if isinstance(layer, nn.BatchNorm2d)]
        others = [layer.weight for layer in self._model if isinstance(layer, nn.Conv2d | nn.Linear)]
        others = [self._model[0].bias, *(weight for weight in others if weight.requires_grad)]
        groups = [
            {"params": parameters, "lr": rate * factor, "weight_decay": decay / (rate * factor)}
            for parameters, factor in ((others, 1), (biases, BIAS_RATE))
        ]
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)

    @torch.inference_mode()
    def accuracy(self, pixels: torch.Tensor, labels: torch.Tensor) -> float:
        """Per cent that are right in six views: as they are and shifted by a pixel both ways, each mirrored too."""
        self._model.eval()
        right = 0
        for part, truth in zip(pixels.split(2000), labels.split(2000), strict=True):
            padded = self._padded(part.to(self._mean.device), 1)
            logits = torch.zeros(len(part), 10, device=padded.device)
            for corner, weight in ((1, 2), (0, 1), (2, 1)):
                place = torch.full((len(part),), corner, device=padded.device)
                for is_mirrored in (False, True):
                    seen = _cut(padded, place, place, torch.full_like(place, is_mirrored, dtype=torch.bool))
                    logits += weight * self._model(seen).float()
            right += (logits.argmax(1).cpu() == truth).sum().item()
        return 100 * right / len(labels)


@torch.no_grad()
def _look_ahead(fast: list[torch.Tensor], slow: list[torch.Tensor], decay: float) -> None:
    """The slow weights keep `decay` of themselves, and the fast ones go on from them."""
    for quick, steady in zip(fast, slow, strict=True):
        quick.copy_(steady.lerp_(quick, 1 - decay))
