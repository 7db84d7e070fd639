"""Muon: momentum, orthogonalized (Jordan et al., 2024, kellerjordan.github.io/posts/muon)."""

from typing import Any

import torch

from cifar_mlflow.learning.hardware import has_fast_bfloat16

NEWTON_SCHULZ_STEPS = 3
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the quintic of steepest slope at zero
SGD_MOMENTUM = 0.85


class Muon(torch.optim.Optimizer):
    """Muon for convolutions, SGD with Nesterov momentum and decoupled weight decay for all other parameters.

    A convolution's filters are scaled to a norm of one (in root mean square) before each step, as in airbench94: with
    batch normalization behind them, their scale decides about nothing but how far a step goes.
    """

    def __init__(self, parameters: Any, lr: float, momentum: float, weight_decay: float) -> None:
        """`parameters` as any optimizer of torch takes them."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, is_convolution = parameter.grad, parameter.dim() == 4
                momentum = group["momentum"] if is_convolution else SGD_MOMENTUM
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                buffer = state["momentum_buffer"].mul_(momentum).add_(gradient)
                update = gradient.add(buffer, alpha=momentum)
                if is_convolution:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    update = orthogonalized(update.flatten(1)).view_as(update)
                else:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"])


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Near to U V' of the singular value decomposition U S V' of `matrix` (rows, columns), by Newton-Schulz iteration.

    The singular values come to between 0.5 and 1.5 or so, not to one: what that takes is not worth its time. That is
    exact enough for bfloat16, where the hardware has it.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16() if has_fast_bfloat16(matrix.device) else matrix.float()
    x = x / (x.norm() + 1e-7)  # the largest singular value must be at most one
    wide = x if len(x) <= x.shape[1] else x.T
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    result: torch.Tensor = (wide if len(x) <= x.shape[1] else wide.T).to(matrix.dtype)
    return result
