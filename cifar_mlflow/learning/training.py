"""Training: one epoch after the other, each yielded as numbers; who listens is not known here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from cifar_mlflow.config import TrainingConfig
from cifar_mlflow.errors import TrainingError
from cifar_mlflow.learning import hardware, networks
from cifar_mlflow.learning.augmentation import Augmentation
from cifar_mlflow.learning.data import Dataset
from cifar_mlflow.learning.evaluation import loss_and_accuracy
from cifar_mlflow.learning.optimization import Schedule, build_optimizer

STEPS_BETWEEN_CHECKS = 100  # of the loss: often enough to stop early, seldom enough not to wait for a GPU


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to. Accuracies are per cent, the rates images a second and the last step's learning rate.

    `train_*` are running averages in train mode. `held_out_*` are of the validation images, or of the test images
    if the run trains on all (`TrainingConfig.trains_on_all`).
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    learning_rate: float
    images_per_second: float


class Training:
    """One training run in progress: `for result in training.epochs(): ...`.

    The same configuration, data, machine and thread count give the same weights to the last bit.
    """

    def __init__(
        self, config: TrainingConfig, data: Dataset, on_step: Callable[[int, int], object] | None = None
    ) -> None:
        """`on_step` is told the images of each step and the epoch's number of steps.

        Raises:
            ConfigurationError: the device asked for is not there.
        """
        if config.threads != "auto":
            torch.set_num_threads(config.threads)
        self.config = config
        self.device = hardware.choose_device(config)
        self.precision = hardware.choose_precision(config, self.device)
        _make_deterministic(self.device)
        torch.manual_seed(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._on_step = on_step
        self._train = data.train.to(self.device)
        self._held_out = (data.test if config.trains_on_all else data.validation).to(self.device)
        statistics = data.channel_statistics() if config.normalize else ((0.0,), (1.0,))
        self.preprocessing = networks.Preprocessing(*statistics).to(self.device)
        network = networks.build(config, len(data.classes), data.image_shape)
        self.network: nn.Module = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self._batches = _batch_bounds(len(data.train), config.batch_size)
        self._optimizer = build_optimizer(config, self.network.parameters())
        self._schedule = Schedule(config, self._optimizer, len(self._batches))

    def epochs(self) -> Iterator[EpochResult]:
        """Trains, and yields after each epoch.

        Raises:
            TrainingError: the loss is no longer finite, or memory is short.
        """
        for epoch in range(1, self.config.epochs + 1):
            started = time.perf_counter()
            try:
                train_loss, train_accuracy, rate = self._train_epoch(epoch)
                images_per_second = len(self._train) / (time.perf_counter() - started)
                self.network.eval()
                held_out_loss, held_out_accuracy = loss_and_accuracy(self._logits, self._held_out)
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"epoch {epoch}: the {self.device.type} device is out of memory with --batch-size "
                    f"{self.config.batch_size}; try half of it ({str(error).splitlines()[0]})"
                ) from None
            yield EpochResult(
                epoch, train_loss, train_accuracy, held_out_loss, held_out_accuracy, rate, images_per_second
            )

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the network's weights, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(self.preprocessing(pixels))
        return logits

    def _train_epoch(self, epoch: int) -> tuple[float, float, float]:
        self.network.train()
        images = len(self._train)
        order = torch.randperm(images, generator=self._generator).to(self.device)
        augmentation = Augmentation.draw(self.config.augmentation, images, self._generator, self.device)
        losses = torch.zeros(len(self._batches), device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        rate = self._schedule.rate
        for step, (start, end) in enumerate(self._batches):
            chosen = order[start:end]
            labels = self._train.labels[chosen]
            pixels = augmentation.apply(self._train.pixels[chosen], slice(start, end))
            self._optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                logits = self._logits(pixels)
                loss = self._loss(logits, labels)
            loss.backward()
            rate = self._schedule.rate
            self._optimizer.step()
            self._schedule.after_step()
            losses[step] = loss.detach()
            correct += (logits.detach().argmax(1) == labels).sum()
            if (step + 1) % STEPS_BETWEEN_CHECKS == 0:
                self._check(losses[: step + 1], epoch)
            if self._on_step is not None:
                self._on_step(end - start, len(self._batches))
        self._check(losses, epoch)
        self._schedule.after_epoch()
        sizes = torch.tensor([end - start for start, end in self._batches], dtype=torch.float64)
        mean_loss = float((losses.double().cpu() * sizes).sum() / images)
        return mean_loss, 100 * correct.item() / images, rate

    def _check(self, losses: torch.Tensor, epoch: int) -> None:
        finite = losses.isfinite()
        if not finite.all():
            step = int((~finite).nonzero()[0]) + 1
            raise TrainingError(
                f"the loss is {losses[step - 1].item()} at epoch {epoch}, step {step} of {len(self._batches)}. "
                f"The likely cause is a learning rate that is too high (--learning-rate {self.config.learning_rate} "
                f"with --optimizer {self.config.optimizer}); try a tenth of it"
            )


def _batch_bounds(images: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and end of each batch. A last one of a single image joins the one before: batch norm needs two."""
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and images - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


def _make_deterministic(device: torch.device) -> None:
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # By default torch then also fills all new memory, a sixth of the time of a step; nothing here reads it unset.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
