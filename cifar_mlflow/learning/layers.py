"""torch's layers, trained faster on a CPU; the same functions but for rounding, and torch's own in evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from cifar_mlflow.learning import kernels
from cifar_mlflow.learning.kernels import Kernels

MANY = 2**15  # elements


class Sequential(nn.Sequential):
    """torch's Sequential, which does what follows a convolution in one go over the images while training.

    That is an activation, Dropout2d, BatchNorm2d with weights and, if it comes next, MaxPool2d(2), by the functions of
    kernels.c, if they were compiled. One layer after the other, torch reads and writes the images six times as often.
    What those functions do not take (images in another order, a number of channels that is no multiple of 16, ...) is
    left to the layers themselves.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        layers = list(self)
        position = 0
        while position < len(layers):
            block = _block_at(layers, position) if self.training else []
            compiled = _compiled_for(input, block) if block else None
            if compiled is None:
                input = layers[position](input)
                position += 1
            else:
                input = _in_one_go(input, block, compiled)
                position += len(block)
        return input


def _block_at(layers: list[nn.Module], position: int) -> list[nn.Module]:
    """The layers from `position` on that can be done in one go; empty if there are none."""
    block = layers[position : position + 4]
    if len(block) < 3 or not isinstance(block[1], nn.Dropout2d) or not isinstance(block[2], nn.BatchNorm2d):
        return []
    return block if isinstance(block[-1], nn.MaxPool2d) else block[:3]


def _compiled_for(inputs: torch.Tensor, block: list[nn.Module]) -> Kernels | None:
    """The compiled functions, if there are any and they take these images (n, channels, height, width)."""
    pools = isinstance(block[-1], nn.MaxPool2d)
    taken = (
        inputs.dim() == 4
        and inputs.device.type == "cpu"
        and inputs.dtype in kernels.TYPES
        and all(parameter.dtype == torch.float32 for layer in block for parameter in layer.parameters())
        and inputs.shape[1] % kernels.LANES == 0
        and inputs.numel() > inputs.shape[1]  # torch refuses to normalize a single pixel
        and inputs.is_contiguous(memory_format=torch.channels_last)
        and not (pools and (inputs.shape[2] % 2 or inputs.shape[3] % 2))
    )
    return kernels.available() if taken else None


def _in_one_go(inputs: torch.Tensor, block: list[nn.Module], compiled: Kernels) -> torch.Tensor:
    activation, dropout, normalization = block[:3]
    assert isinstance(dropout, nn.Dropout2d)
    assert isinstance(normalization, nn.BatchNorm2d)
    assert normalization.num_batches_tracked is not None
    slope: torch.Tensor
    match activation:
        case nn.PReLU():
            slope = activation.weight
        case nn.ReLU():
            slope = torch.zeros(1)
        case nn.LeakyReLU():
            slope = torch.tensor([activation.negative_slope])
        case _:
            inputs, slope = activation(inputs).contiguous(memory_format=torch.channels_last), torch.ones(1)
    # A channel is dropped as a whole; torch draws as much for one pixel of it as for all.
    kept = nn.functional.dropout2d(torch.ones((*inputs.shape[:2], 1, 1)), dropout.p)
    normalization.num_batches_tracked.add_(1)
    outputs: torch.Tensor = _Block.apply(
        inputs, slope, normalization.weight, normalization.bias,
        kept, normalization, 2 if len(block) == 4 else 1, compiled,
    )  # fmt: skip
    return outputs


class _Block(torch.autograd.Function):
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
        outputs = torch.empty(shape, dtype=inputs.dtype, memory_format=torch.channels_last)
        places = torch.empty(outputs.shape if side > 1 else 0, dtype=torch.uint8)
        means, inverses = torch.empty_like(weight), torch.empty_like(weight)
        compiled.run(
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
    @once_differentiable
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, slope, weight, kept, means, inverses, places = ctx.saved_tensors
        gradients = gradients.contiguous(memory_format=torch.channels_last)
        input_gradients, slope_gradient = torch.empty_like(inputs), torch.empty_like(slope)
        weight_gradients, bias_gradients = torch.empty_like(weight), torch.empty_like(weight)
        ctx.compiled.run(
            "backward", inputs, ctx.side,
            slope=slope, kept=kept, weight=weight, means=means, inverses=inverses, places=places,
            gradients=gradients, input_gradients=input_gradients, slope_gradient=slope_gradient,
            weight_gradients=weight_gradients, bias_gradients=bias_gradients,
        )  # fmt: skip
        return input_gradients, slope_gradient, weight_gradients, bias_gradients, None, None, None, None


class PReLU(nn.PReLU):
    """torch's PReLU (He et al., 2015) with a single slope."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.device.type == "cpu" and input.numel() > MANY:
            activated: torch.Tensor = _FastPReLU.apply(input, self.weight)
            return activated
        return super().forward(input)


class _FastPReLU(torch.autograd.Function):
    """By torch's kernels for other functions: for many elements, that for PReLU's gradients takes twice as long."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs, slope)
        return nn.functional.leaky_relu(inputs, slope.item())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, slope = ctx.saved_tensors
        # ELU's gradient with these constants is `gradient * min(inputs, 0)`, in one pass.
        products = torch.ops.aten.elu_backward(gradients[0], 1.0, 0.0, 1.0, True, inputs)
        # torch sums bfloat16 in float32 and rounds the result alone; asked for float32, it would copy everything first.
        slope_gradient = products.sum().to(slope.dtype).reshape(slope.shape)
        return torch.ops.aten.leaky_relu_backward(gradients[0], inputs, slope.item(), False), slope_gradient


class Flatten(nn.Flatten):
    """torch's Flatten, whose gradient takes on the memory order of the images, which the layers before it need."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.requires_grad and input.is_contiguous(memory_format=torch.channels_last):
            input.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return super().forward(input)


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
