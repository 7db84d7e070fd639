"""Training: one epoch after the other, each yielded as numbers; who listens is not known here."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError, Diverged
from cifar_mlflow.learning import compiled, hardware
from cifar_mlflow.learning.batches import divide
from cifar_mlflow.learning.data.augmentation import Augmentation, refuse_small
from cifar_mlflow.learning.data.datasets import Dataset, class_weights
from cifar_mlflow.learning.data.mixing import mixing
from cifar_mlflow.learning.evaluation import NOT_SCORED, Scores, scores
from cifar_mlflow.learning.networks import build, own, transfer
from cifar_mlflow.learning.networks.fast import FastNetwork
from cifar_mlflow.learning.networks.pretrained import Pretrained
from cifar_mlflow.learning.optimizers.build import build_optimizer
from cifar_mlflow.learning.optimizers.schedule import Schedule
from cifar_mlflow.learning.stopping import Stopping

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
    held_out_balanced_accuracy: float = math.nan
    held_out_recalls: Sequence[float] = ()
    """Of each class, as in `Scores`. In checkpoints of earlier versions there are none, and the mean of them is NaN."""


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
        pretrained: Pretrained | None = None,
        last_epoch: int | None = None,
    ) -> None:
        """`on_step` is told the images of each step and the epoch's number of steps; it must not take long.

        `on_check` is called now and then between two steps, when `state()` can be taken. `memory_format` is how images
        and weights lie in memory: channels_last, or contiguous_format for a network that takes no other. `pretrained`
        are the weights that --pretrained names; `last_epoch` is as in `Stopping`.

        Raises:
            ConfigurationError: the device asked for is not there, the network cannot be built, the weights do not fit
                it, or the images are smaller than the shift.
        """
        refuse_small(config, data.image_shape)
        if config.threads != "auto":
            torch.set_num_threads(config.threads)
        self.config, self.memory_format = config, memory_format
        self.device = hardware.choose_device(config)
        self.precision = hardware.choose_precision(config, self.device)
        hardware.make_deterministic(self.device)
        hardware.seed_all(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._on_step, self._on_check = on_step, on_check
        self._image_size, self._classes = data.image_shape[:2], len(data.classes)
        self._train = data.train.to(self.device)
        self._held_out = (data.test if config.trains_on_all else data.validation).to(self.device)
        self.preprocessing = transfer.preprocessing(config, data, memory_format, pretrained).to(self.device)
        network = build.build(config, len(data.classes), data.image_shape)
        with own.faults_told(config, "it cannot be moved to the device"):
            self.network: nn.Module = network.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        if isinstance(network, FastNetwork):
            chosen = network.whitened(data.train.labels, *data.image_shape[:2]).to(self.device)
            network.whiten(self.preprocessing(self._train.pixels[chosen]))
        self.start = transfer.start(config, network, data, pretrained)
        compiled.accelerate_for(config, self.network)
        self._average: AveragedModel | None = None
        if config.averaging == "ema":
            average = get_ema_multi_avg_fn(config.averaging_decay)  # type: ignore[no-untyped-call]
            with own.faults_told(config, "its weights cannot be averaged"), own.Copyable():
                self._average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        weights = class_weights(data.train.labels, len(data.classes)) if config.class_weights == "balanced" else None
        self._loss = nn.CrossEntropyLoss(weights, label_smoothing=config.label_smoothing).to(self.device)
        self._mix = mixing(config, len(data.classes))
        self._batches = divide(len(data.train), config.batch_size, config.accumulate)
        # Between the batches of one step, its gradient would belong to the state.
        self._check_every, self._check_soon = -(-STEPS_BETWEEN_CHECKS // config.accumulate) * config.accumulate, False
        self._optimizer = build_optimizer(config, self.network, self.start.head)
        self._schedule = Schedule(config, self._optimizer, sum(batch.ends_step for batch in self._batches))
        self.stopping = Stopping(config, last_epoch)
        self._passed = 0
        self._in_progress: _EpochInProgress | None = None

    def epochs(self) -> Iterator[EpochResult]:
        """Trains what is left, and yields after each epoch.

        Raises:
            Diverged: the loss is no longer finite.
            TrainingError: memory is short.
            ConfigurationError: the user's own network fails.
        """
        while self._passed < self.config.epochs and not self.stopping.reason:
            epoch = self._passed + 1
            size = f"with --batch-size {self.config.batch_size}; try half of it"
            with hardware.enough_memory(f"epoch {epoch}: the {self.device.type} device is out of memory {size}"):
                loss, accuracy, rate, speed = self._train_epoch(epoch)
                held_out = self._score(self.stopping.is_last(epoch))
            self._passed, self._in_progress = epoch, None
            self.stopping.after(epoch, held_out.accuracy)
            yield EpochResult(epoch, loss, accuracy, *held_out[:2], rate, speed, *held_out[2:])

    def check_soon(self) -> None:
        """Has `on_check` called after the step that is being done, and from then on after each."""
        self._check_soon = True

    def _score(self, is_last: bool) -> Scores:
        """Those on the held-out images, NaN after an epoch that is not scored."""
        if not self.config.epoch_evaluation and (self.config.trains_on_all or not is_last):
            return NOT_SCORED
        with own.faults_told(self.config, "it fails in evaluation"):
            network, images = self._result().eval(), self._held_out
            return scores(lambda pixels: own.logits_of(network(self.preprocessing(pixels))), images, self._classes)

    def _result(self) -> nn.Module:
        """The network that the training is for: the one that is trained, or the average of its weights."""
        return self.network if self._average is None else self._average.module

    def state(self) -> dict[str, Any]:
        """All on which the rest of the training depends, between two epochs or, in `on_check`, between two steps.

        Dicts, lists, numbers, strings and tensors; the tensors are the training's own, which the next step changes.
        """
        now = self._in_progress
        images_in_progress = self._batches[now.steps - 1].end if now and now.steps else 0
        state = {
            "device": self.device.type,
            "precision": str(self.precision).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "epochs": self._passed,
            "images_done": self._passed * len(self._train) + images_in_progress,  # each as often as it was trained on
            "network": dict(self.network.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state(),
            "stopping": self.stopping.state(),
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
        if "stopping" in state:  # a checkpoint of an earlier version has none
            self.stopping.restore(state["stopping"])
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
            Augmentation(self.config, epoch, order, self._generator, self._image_size),
            losses=torch.zeros(len(self._batches), device=self.device),
            correct=torch.zeros((), dtype=torch.int64, device=self.device),
            started=time.perf_counter(),
        )

    def _train_epoch(self, epoch: int) -> tuple[float, float, float, float]:
        """Mean loss, accuracy, rate of the last step, images a second."""
        with own.faults_told(self.config, "it fails in a training step"):
            self.network.train()
            for normalization in self.start.frozen:
                normalization.eval()
        now = self._in_progress = self._in_progress or self._begin_epoch(epoch)
        rate = self._schedule.rate
        for start, end, share, ends_step in self._batches[now.steps :]:
            chosen = now.order[start:end]
            labels = targets = self._train.labels[chosen]
            pixels = now.augmentation.apply(self._train.pixels[chosen], slice(start, end))
            if self._mix is not None:
                pixels, targets = self._mix(pixels, labels)
                labels = targets.argmax(1)
            with own.faults_told(self.config, "it fails in a training step"):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                    logits = self._logits(pixels)
                    loss = self._loss(logits, targets)
                (loss if share == 1 else loss * share).backward()
            rate = self._schedule.rate
            if ends_step:
                self._step()
            now.losses[now.steps] = loss.detach()
            now.correct += (logits.detach().argmax(1) == labels).sum()
            now.steps += 1
            self._on_step(end - start, len(self._batches))
            # After the last step, the epoch's own end follows at once.
            due = now.steps % self._check_every == 0 or (self._check_soon and ends_step)
            if due and now.steps < len(self._batches):
                self._check(now.losses[: now.steps], epoch)
                self._on_check()
        self._check(now.losses, epoch)
        self._schedule.after_epoch()
        images = len(self._train)
        sizes = torch.tensor([batch.end - batch.start for batch in self._batches], dtype=torch.float64)
        # First to the CPU: Apple's GPUs know no float64.
        mean_loss = float((now.losses.cpu().double() * sizes).sum() / images)
        return mean_loss, 100 * now.correct.item() / images, rate, images / (time.perf_counter() - now.started)

    def _step(self) -> None:
        """Takes a step by the gradients that were added up, and forgets them."""
        if self.config.clip_grad != "none":
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_grad)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.after_step()
        if self._average is not None:  # it starts at the weights after the first step
            self._average.update_parameters(self.network)

    def _check(self, losses: torch.Tensor, epoch: int) -> None:
        finite = losses.isfinite()
        if not finite.all():
            step = int((~finite).nonzero()[0]) + 1
            raise Diverged(
                f"the loss is {losses[step - 1].item()} at epoch {epoch}, step {step} of {len(self._batches)}. "
                f"The likely cause is a learning rate that is too high (--learning-rate {self.config.learning_rate} "
                f"with --optimizer {self.config.optimizer}); try a tenth of it"
            )
