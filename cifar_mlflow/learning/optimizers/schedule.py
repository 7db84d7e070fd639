"""The learning rate schedule that a configuration names: torch's own, or a triangle."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from cifar_mlflow.config.training import TrainingConfig


class Schedule:
    """The learning rate over the run. Call `after_step` and `after_epoch` as their names say."""

    def __init__(self, config: TrainingConfig, optimizer: Optimizer, steps_per_epoch: int) -> None:
        self._optimizer = optimizer
        self._every_step = config.scheduler in ("one_cycle", "triangular")
        self._scheduler = _scheduler(config, optimizer, config.epochs * steps_per_epoch)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        if self._every_step:
            self._scheduler.step()

    def after_epoch(self) -> None:
        if not self._every_step:
            self._scheduler.step()

    def state(self) -> dict[str, Any]:
        """How far the schedule is. The rate itself is part of the optimizer's state."""
        values = self._scheduler.state_dict()
        return {name: values[name] for name in ("last_epoch", "_step_count", "_last_lr")}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to where `state` was taken from a schedule of the same configuration."""
        # LambdaLR's own method asks for the function too, which is no state.
        lr_scheduler.LRScheduler.load_state_dict(self._scheduler, dict(state))


def _scheduler(config: TrainingConfig, optimizer: Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    match config.scheduler:
        case "none":
            return lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
        case "step":
            return lr_scheduler.StepLR(optimizer, config.step_size, config.gamma)
        case "multistep":
            return lr_scheduler.MultiStepLR(optimizer, list(config.milestones), config.gamma)
        case "exponential":
            return lr_scheduler.ExponentialLR(optimizer, config.gamma)
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
        case "one_cycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            # Momentum stays what --momentum says.
            return lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, cycle_momentum=False)
        case "triangular":
            rising = min(round(config.warmup * steps), steps - 1)  # the last step is left for the fall
            return lr_scheduler.LambdaLR(optimizer, lambda step: _triangle(step, rising, steps))


def _triangle(step: int, rising: int, steps: int) -> float:
    """Factor of the rate at `step`, from 0: up in `rising` steps to one, then down in a line that ends at `steps`."""
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(steps - step, 0) / (steps - rising)
