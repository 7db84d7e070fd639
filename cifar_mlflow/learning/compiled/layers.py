"""torch's layers, trained faster on a CPU; the same functions but for rounding, and torch's own in evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from cifar_mlflow.learning.compiled import bindings
from cifar_mlflow.learning.compiled.bindings import Kernels, differentiable_once
from cifar_mlflow.learning.compiled.pooling import MaxPool2d

FLOAT: Any = {"dtype": torch.float32, "device": "cpu"}


class Sequential(nn.Sequential):
    """torch's Sequential, which does what follows a convolution in one go over the images while training.

    That is Dropout2d and BatchNorm2d, with PReLU, LeakyReLU or ReLU before and MaxPool2d(2) behind them, by the
    functions of kernels.c, if they were compiled. One layer after the other, torch reads and writes the images about
    four times as often. What those functions do not take (images in another order, a number of channels that is no
    multiple of 16, layers with other options or with hooks, ...) is left to the layers.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        layers = list(self)
        while layers:
            block = _block_of(layers) if self.training else None
            compiled = bindings.available() if block is not None and block.takes(input) else None
            if block is None or compiled is None:
                input = layers.pop(0)(input)
            else:
                input = block(input, compiled)
                del layers[: block.length]
        return input


@dataclass(frozen=True)
class _Block:
    """Layers that can be done in one go; there need not be an activation."""

    activation: nn.PReLU | nn.LeakyReLU | nn.ReLU | None
    dropout: nn.Dropout2d
    normalization: nn.BatchNorm2d
    pools: bool

    @property
    def length(self) -> int:
        """The number of layers."""
        return 2 + (self.activation is not None) + self.pools

    def takes(self, inputs: torch.Tensor) -> bool:
        """Whether the compiled functions can do these images (n, channels, height, width)."""
        return (
            bindings.takes(inputs)
            and inputs.shape[1] % bindings.LANES == 0
            and inputs.shape[1] == self.normalization.num_features
            and inputs.numel() > inputs.shape[1]  # torch refuses to normalize a single pixel
            and not (isinstance(self.activation, nn.PReLU) and _is_cast(inputs))
            and not (self.pools and (inputs.shape[2] % 2 or inputs.shape[3] % 2))
        )

    def __call__(self, inputs: torch.Tensor, compiled: Kernels) -> torch.Tensor:
        slope: torch.Tensor
        match self.activation:
            case nn.PReLU(weight=weight):
                slope = weight
            case nn.LeakyReLU(negative_slope=number):
                slope = torch.tensor([number], **FLOAT)
            case nn.ReLU():
                slope = torch.zeros(1, **FLOAT)
            case _:
                slope = torch.ones(1, **FLOAT)
        # A channel is dropped as a whole; torch draws as much for one pixel of it as for all.
        kept = nn.functional.dropout2d(torch.ones((*inputs.shape[:2], 1, 1), **FLOAT), self.dropout.p)
        normalization = self.normalization
        normalization.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        outputs: torch.Tensor = _InOneGo.apply(
            inputs, slope, normalization.weight, normalization.bias,
            kept, normalization, 2 if self.pools else 1, compiled,
        )  # fmt: skip
        return outputs


def _block_of(layers: list[nn.Module]) -> _Block | None:
    """The first of these layers, if they can be done in one go."""
    activation = layers[0] if isinstance(layers[0], nn.PReLU | nn.LeakyReLU | nn.ReLU) else None
    match activation:
        case None | nn.LeakyReLU(inplace=False) | nn.ReLU(inplace=False):
            pass
        case nn.PReLU(num_parameters=1, weight=torch.Tensor(dtype=torch.float32)):
            pass
        case _:
            return None
    match layers if activation is None else layers[1:]:
        case [
            nn.Dropout2d(inplace=False) as dropout,
            nn.BatchNorm2d(
                affine=True, track_running_stats=True, momentum=float() | int(),
                weight=torch.Tensor(dtype=torch.float32), bias=torch.Tensor(),
            ) as normalization,
            *rest,
        ]:  # fmt: skip
            pass
        case _:
            return None
    pools = False
    match rest:
        case [nn.MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False, return_indices=False), *_]:
            pools = True
    block = _Block(activation, dropout, normalization, pools)
    return block if all(map(_can_be_left_out, layers[: block.length])) else None


def _can_be_left_out(layer: nn.Module) -> bool:
    """Whether nobody sees that the layer itself is not called."""
    # What is derived from a layer may do something else.
    if not layer.training or type(layer) not in KINDS or "forward" in vars(layer):
        return False
    # torch has no public way to ask for hooks; these are the ones that `nn.Module.__call__` looks for.
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return not any(hooks) and not _has_any_global_hook()  # type: ignore[no-untyped-call]


class _InOneGo(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        slope: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        kept: torch.Tensor,
        normalization: nn.BatchNorm2d,
        side: int,
        compiled: Kernels,
    ) -> torch.Tensor:
        images, channels, height, width = inputs.shape
        shape = (images, channels, height // side, width // side)
        outputs = torch.empty(shape, dtype=inputs.dtype, device="cpu", memory_format=torch.channels_last)
        places = torch.empty(outputs.shape if side > 1 else 0, dtype=torch.uint8, device="cpu")
        means, inverses = torch.empty_like(weight), torch.empty_like(weight)
        compiled.block(
            "forward", inputs, side,
            slope=slope, kept=kept, weight=weight, bias=bias, momentum=normalization.momentum,
            epsilon=normalization.eps, running_mean=normalization.running_mean,
            running_variance=normalization.running_var, means=means, inverses=inverses,
            outputs=outputs, places=places,
        )  # fmt: skip
        ctx.save_for_backward(inputs, slope, weight, kept, means, inverses, places)
        ctx.side, ctx.compiled = side, compiled
        return outputs

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, slope, weight, kept, means, inverses, places = ctx.saved_tensors
        # Of what was saved, hooks may have made copies in another order.
        inputs, gradients = (each.contiguous(memory_format=torch.channels_last) for each in (inputs, gradients))
        input_gradients, slope_gradient = torch.empty_like(inputs), torch.empty_like(slope)
        weight_gradients, bias_gradients = torch.empty_like(weight), torch.empty_like(weight)
        ctx.compiled.block(
            "backward", inputs, ctx.side,
            slope=slope, kept=kept, weight=weight, means=means, inverses=inverses, places=places,
            gradients=gradients, input_gradients=input_gradients, slope_gradient=slope_gradient,
            weight_gradients=weight_gradients, bias_gradients=bias_gradients,
        )  # fmt: skip
        return input_gradients, slope_gradient, weight_gradients, bias_gradients, None, None, None, None


class PReLU(nn.PReLU):
    """torch's PReLU (He et al., 2015) with a single slope."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        ours = type(input) is torch.Tensor and input.is_cpu and self.num_parameters == 1 and not _is_cast(input)
        if self.training and ours:
            activated: torch.Tensor = _FastPReLU.apply(input, self.weight)
            return activated
        return super().forward(input)


def _is_cast(inputs: torch.Tensor) -> bool:
    """Whether autocast lets PReLU compute in another type than that of `inputs`."""
    return torch.is_autocast_enabled("cpu") and inputs.dtype != torch.get_autocast_dtype("cpu")


class _FastPReLU(torch.autograd.Function):
    """By torch's kernels for other functions: that for PReLU's gradients takes more than twice as long."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs, slope)
        return nn.functional.leaky_relu(inputs, slope.item())

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, slope = ctx.saved_tensors
        # ELU's gradient with these constants is `gradient * min(inputs, 0)`, in one pass.
        products = torch.ops.aten.elu_backward(gradients, 1.0, 0.0, 1.0, True, inputs)
        # torch sums bfloat16 in float32 and rounds the result alone; asked for float32, it would copy everything first.
        slope_gradient = products.sum().to(slope.dtype).reshape(slope.shape)
        return torch.ops.aten.leaky_relu_backward(gradients, inputs, slope.item(), False), slope_gradient


class Flatten(nn.Flatten):
    """torch's Flatten, whose gradient takes on the memory order of the images, which the layers before it need."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        made = input.requires_grad and not input.is_leaf
        if self.training and made and input.is_contiguous(memory_format=torch.channels_last):
            input.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return super().forward(input)


KINDS = (nn.PReLU, PReLU, nn.LeakyReLU, nn.ReLU, nn.Dropout2d, nn.BatchNorm2d, nn.MaxPool2d, MaxPool2d)


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
