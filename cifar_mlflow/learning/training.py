"""Training: one epoch after the other, each yielded as numbers; who listens is not known here."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError, Diverged
from cifar_mlflow.learning import compiled, hardware
from cifar_mlflow.learning.data.augmentation import Augmentation
from cifar_mlflow.learning.data.datasets import Dataset
from cifar_mlflow.learning.evaluation import loss_and_accuracy
from cifar_mlflow.learning.networks import build, own
from cifar_mlflow.learning.networks.fast import FastNetwork
from cifar_mlflow.learning.networks.preprocessing import Preprocessing
from cifar_mlflow.learning.optimizers.build import build_optimizer
from cifar_mlflow.learning.optimizers.schedule import Schedule

STEPS_BETWEEN_CHECKS = 100  # of loss and clock: often enough to stop early, seldom enough not to wait for a GPU


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to. Accuracies are per cent, the rates images a second and the last step's learning rate.

    `train_*` are running averages in train mode. `held_out_*` are of the validation images, or of the test images
    if the run trains on all (`TrainingConfig.trains_on_all`), and NaN after an epoch that is not scored
    (`TrainingConfig.epoch_evaluation`).
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    learning_rate: float
    images_per_second: float


@dataclass
class _EpochInProgress:
    """Its order and draws, and the sums so far: what `steps` steps have left behind."""

    drawn_from: torch.Tensor
    """State of the generator before the draws, from which they can be drawn again."""
    order: torch.Tensor
    augmentation: Augmentation
    losses: torch.Tensor
    correct: torch.Tensor
    started: float
    steps: int = 0


class Training:
    """One training run in progress: `for result in training.epochs(): ...`.

    The same configuration, data, machine and thread count give the same weights to the last bit, also if the training
    is broken off and goes on from its `state()` in another process.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: Dataset,
        on_step: Callable[[int, int], object] = lambda images, steps: None,
        on_check: Callable[[], object] = lambda: None,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        """`on_step` is told the images of each step and the epoch's number of steps; it must not take long.

        `on_check` is called now and then between two steps, when `state()` can be taken. `memory_format` is how images
        and weights lie in memory: channels_last, or contiguous_format for a network that takes no other.

        Raises:
            ConfigurationError: the device asked for is not there, the network cannot be built, or the images are
                smaller than the shift.
        """
        side = min(data.image_shape[:2])
        if config.augmentation == "flip_crop" and config.shift >= side:
            raise ConfigurationError(f"--shift: {config.shift} is refused: the images have {side} pixels a side")
        if config.threads != "auto":
            torch.set_num_threads(config.threads)
        self.config = config
        self.device = hardware.choose_device(config)
        self.precision = hardware.choose_precision(config, self.device)
        self.memory_format = memory_format
        hardware.make_deterministic(self.device)
        hardware.seed_all(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._on_step, self._on_check = on_step, on_check
        self._train = data.train.to(self.device)
        self._held_out = (data.test if config.trains_on_all else data.validation).to(self.device)
        statistics = data.channel_statistics() if config.normalize else ((0.0,), (1.0,))
        self.preprocessing = Preprocessing(*statistics, memory_format).to(self.device)
        network = build.build(config, len(data.classes), data.image_shape)
        self.network: nn.Module = network.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        if isinstance(network, FastNetwork):
            chosen = network.whitened(data.train.labels, *data.image_shape[:2]).to(self.device)
            network.whiten(self.preprocessing(self._train.pixels[chosen]))
        if compiled.applies_to(config):
            compiled.accelerate(self.network)
        self._average: AveragedModel | None = None
        if config.averaging == "ema":
            average = get_ema_multi_avg_fn(config.averaging_decay)  # type: ignore[no-untyped-call]
            with own.Copyable():
                self._average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self._loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self._batches = _batch_bounds(len(data.train), config.batch_size)
        self._optimizer = build_optimizer(config, self.network)
        self._schedule = Schedule(config, self._optimizer, len(self._batches))
        self._check_soon = False
        self._passed = 0
        self._in_progress: _EpochInProgress | None = None

    def epochs(self) -> Iterator[EpochResult]:
        """Trains what is left, and yields after each epoch.

        Raises:
            Diverged: the loss is no longer finite.
            TrainingError: memory is short.
            ConfigurationError: the user's own network fails.
        """
        while self._passed < self.config.epochs:
            epoch = self._passed + 1
            size = f"with --batch-size {self.config.batch_size}; try half of it"
            with hardware.enough_memory(f"epoch {epoch}: the {self.device.type} device is out of memory {size}"):
                loss, accuracy, rate, speed = self._train_epoch(epoch)
                held_out = self._score(epoch)
            self._passed, self._in_progress = epoch, None
            yield EpochResult(epoch, loss, accuracy, *held_out, rate, speed)

    def check_soon(self) -> None:
        """Has `on_check` called after the step that is being done, and from then on after each."""
        self._check_soon = True

    def _score(self, epoch: int) -> tuple[float, float]:
        """Mean loss and accuracy over the held-out images; NaN after an epoch that is not scored."""
        is_last = epoch == self.config.epochs
        if not self.config.epoch_evaluation and (self.config.trains_on_all or not is_last):
            return math.nan, math.nan
        network = self._result().eval()
        with own.faults_told(self.config, "it fails in evaluation"):
            return loss_and_accuracy(lambda pixels: own.logits_of(network(self.preprocessing(pixels))), self._held_out)

    def _result(self) -> nn.Module:
        """The network that the training is for: the one that is trained, or the average of its weights."""
        return self.network if self._average is None else self._average.module

    def state(self) -> dict[str, Any]:
        """All on which the rest of the training depends, between two epochs or, in `on_check`, between two steps.

        Dicts, lists, numbers, strings and tensors; the tensors are the training's own, which the next step changes.
        """
        now = self._in_progress
        images_in_progress = self._batches[now.steps - 1][1] if now and now.steps else 0
        state = {
            "device": self.device.type,
            "precision": str(self.precision).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "epochs": self._passed,
            "images_done": self._passed * len(self._train) + images_in_progress,  # each as often as it was trained on
            "network": dict(self.network.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state(),
            "random": {"order": self._generator.get_state(), **hardware.random_state(self.device)},
        }
        if self._average is not None:
            state["average"] = dict(self._average.state_dict())
        if now:
            kept = {name: getattr(now, name) for name in ("drawn_from", "losses", "correct", "steps")}
            state["in_progress"] = {**kept, "seconds": time.perf_counter() - now.started}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to where `state` was taken from a training of the same configuration and data.

        Raises ConfigurationError if it was on another kind of device, which would come to other numbers.
        """
        if state["device"] != self.device.type:
            raise ConfigurationError(
                f"--device: the training was on {state['device']} and can go on there alone, not on {self.device.type}"
            )
        torch.set_num_threads(state["threads"])
        self.precision = getattr(torch, state["precision"])
        with own.faults_told(self.config, "the checkpoint is of another network"):
            self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.restore(state["schedule"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._passed = state["epochs"]
        if now := state.get("in_progress"):
            self._generator.set_state(now["drawn_from"])
            begun = self._in_progress = self._begin_epoch(self._passed + 1)
            begun.losses.copy_(now["losses"])
            begun.correct.copy_(now["correct"])
            begun.steps = now["steps"]
            begun.started -= now["seconds"]
        self._generator.set_state(state["random"]["order"])
        hardware.restore_random_state(state["random"], self.device)

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the resulting network's weights, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._result().state_dict().items()}

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return own.logits_of(self.network(self.preprocessing(pixels)))

    def _begin_epoch(self, epoch: int) -> _EpochInProgress:
        drawn_from = self._generator.get_state()
        order = torch.randperm(len(self._train), generator=self._generator).to(self.device)
        return _EpochInProgress(
            drawn_from,
            order,
            Augmentation(self.config, epoch, order, self._generator),
            losses=torch.zeros(len(self._batches), device=self.device),
            correct=torch.zeros((), dtype=torch.int64, device=self.device),
            started=time.perf_counter(),
        )

    def _train_epoch(self, epoch: int) -> tuple[float, float, float, float]:
        """Mean loss, accuracy, rate of the last step, images a second."""
        self.network.train()
        now = self._in_progress = self._in_progress or self._begin_epoch(epoch)
        rate = self._schedule.rate
        for start, end in self._batches[now.steps :]:
            chosen = now.order[start:end]
            labels = self._train.labels[chosen]
            pixels = now.augmentation.apply(self._train.pixels[chosen], slice(start, end))
            self._optimizer.zero_grad(set_to_none=True)
            with own.faults_told(self.config, "it fails in a training step"):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                    logits = self._logits(pixels)
                    loss = self._loss(logits, labels)
                loss.backward()
            rate = self._schedule.rate
            self._optimizer.step()
            self._schedule.after_step()
            if self._average is not None:  # it starts at the weights after the first step
                self._average.update_parameters(self.network)
            now.losses[now.steps] = loss.detach()
            now.correct += (logits.detach().argmax(1) == labels).sum()
            now.steps += 1
            self._on_step(end - start, len(self._batches))
            # After the last step, the epoch's own end follows at once.
            due = self._check_soon or now.steps % STEPS_BETWEEN_CHECKS == 0
            if due and now.steps < len(self._batches):
                self._check(now.losses[: now.steps], epoch)
                self._on_check()
        self._check(now.losses, epoch)
        self._schedule.after_epoch()
        images = len(self._train)
        sizes = torch.tensor([end - start for start, end in self._batches], dtype=torch.float64)
        # First to the CPU: Apple's GPUs know no float64.
        mean_loss = float((now.losses.cpu().double() * sizes).sum() / images)
        return mean_loss, 100 * now.correct.item() / images, rate, images / (time.perf_counter() - now.started)

    def _check(self, losses: torch.Tensor, epoch: int) -> None:
        finite = losses.isfinite()
        if not finite.all():
            step = int((~finite).nonzero()[0]) + 1
            raise Diverged(
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
