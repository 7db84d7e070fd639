"""torch's layers, trained faster on a CPU; the same functions but for rounding, and torch's own in evaluation.

Images that are channels last in memory go through kernels.c where it was compiled; torch takes twice as long or more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from cifar_mlflow.learning import kernels
from cifar_mlflow.learning.kernels import Kernels


class PReLU(nn.PReLU):
    """torch's PReLU (He et al., 2015) with a single slope."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        compiled = _compiled_for_elements(input) if self.weight.dtype == torch.float32 else None
        outputs: torch.Tensor
        if compiled is None:
            outputs = _SimplePReLU.apply(input, self.weight)
        else:
            outputs = _CompiledPReLU.apply(input, self.weight, compiled)
        return outputs


class _SimplePReLU(torch.autograd.Function):
    """By torch's kernels for other functions: that for PReLU's gradients takes more than twice as long."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs, slope)
        return torch.nn.functional.leaky_relu(inputs, slope.item())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, slope = ctx.saved_tensors
        # ELU's gradient with these constants is `gradient * min(inputs, 0)`, in one pass.
        products = torch.ops.aten.elu_backward(gradients[0], 1.0, 0.0, 1.0, True, inputs)
        # torch sums bfloat16 in float32 and rounds the result alone; asked for float32, it would copy everything first.
        slope_gradient = products.sum().to(slope.dtype).reshape(slope.shape)
        return torch.ops.aten.leaky_relu_backward(gradients[0], inputs, slope.item(), False), slope_gradient


class _CompiledPReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, slope: torch.Tensor, compiled: Kernels) -> torch.Tensor:
        ctx.save_for_backward(inputs, slope)
        ctx.compiled = compiled
        outputs = torch.empty_like(inputs)
        compiled.run("prelu_forward", inputs.dtype, inputs, slope, outputs, inputs.numel())
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        inputs, slope = ctx.saved_tensors
        gradients = _in_order_of(inputs, gradients)
        input_gradients, slope_gradient = torch.empty_like(inputs), torch.empty_like(slope)
        ctx.compiled.run(
            "prelu_backward", inputs.dtype,
            gradients, inputs, slope, input_gradients, slope_gradient, inputs.numel(),
        )  # fmt: skip
        return input_gradients, slope_gradient, None


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch normalization (Ioffe & Szegedy, 2015) of images, with weights and running statistics."""

    momentum: float

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        compiled = _compiled_for_images(input) if self.training and self.weight.dtype == torch.float32 else None
        if compiled is None:
            return super().forward(input)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        outputs: torch.Tensor = _CompiledBatchNorm.apply(
            input, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps, compiled
        )
        return outputs


class _CompiledBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        running_mean: torch.Tensor,
        running_variance: torch.Tensor,
        momentum: float,
        epsilon: float,
        compiled: Kernels,
    ) -> torch.Tensor:
        channels = inputs.shape[1]
        outputs, scratch = torch.empty_like(inputs), torch.empty(compiled.scratch_size(channels))
        means, inverses = torch.empty_like(weight), torch.empty_like(weight)
        ctx.save_for_backward(inputs, weight, means, inverses)
        ctx.compiled = compiled
        compiled.run(
            "batch_norm_forward", inputs.dtype,
            inputs, outputs, weight, bias, running_mean, running_variance, means, inverses, scratch,
            momentum, epsilon, inputs.numel() // channels, channels,
        )  # fmt: skip
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, means, inverses = ctx.saved_tensors
        channels = inputs.shape[1]
        gradients, scratch = _in_order_of(inputs, gradients), torch.empty(ctx.compiled.scratch_size(channels))
        input_gradients = torch.empty_like(inputs)
        weight_gradients, bias_gradients = torch.empty_like(weight), torch.empty_like(weight)
        ctx.compiled.run(
            "batch_norm_backward", inputs.dtype,
            gradients, inputs, input_gradients, weight, means, inverses, weight_gradients, bias_gradients, scratch,
            inputs.numel() // channels, channels,
        )  # fmt: skip
        return input_gradients, weight_gradients, bias_gradients, None, None, None, None, None


class MaxPool2d(nn.MaxPool2d):
    """torch's max-pooling of 2 x 2 pixels."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        compiled = _compiled_for_images(input) if self.training else None
        outputs: torch.Tensor
        if compiled is None or any(side % 2 for side in input.shape[2:]):
            outputs = super().forward(input)
        else:
            outputs = _CompiledMaxPool.apply(input, compiled)
        return outputs


class _CompiledMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, compiled: Kernels) -> torch.Tensor:
        images, channels, height, width = inputs.shape
        shape = (images, channels, height // 2, width // 2)
        outputs = torch.empty(shape, dtype=inputs.dtype, memory_format=torch.channels_last)
        places = torch.empty_like(outputs, dtype=torch.uint8)
        compiled.run("max_pool_forward", inputs.dtype, inputs, outputs, places, images * height, width, channels)
        ctx.save_for_backward(places)
        ctx.compiled, ctx.shape = compiled, inputs.shape
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (places,) = ctx.saved_tensors
        images, channels, height, width = ctx.shape
        gradients = gradients.contiguous(memory_format=torch.channels_last)
        input_gradients = torch.empty(ctx.shape, dtype=gradients.dtype, memory_format=torch.channels_last)
        ctx.compiled.run(
            "max_pool_backward", gradients.dtype, gradients, places, input_gradients, images * height, width, channels
        )
        return input_gradients, None


class Flatten(nn.Flatten):
    """torch's Flatten, whose gradient takes on the memory order of the images, which the layers before it need."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.requires_grad and input.is_contiguous(memory_format=torch.channels_last):
            input.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return super().forward(input)


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _compiled_for_elements(inputs: torch.Tensor) -> Kernels | None:
    """The compiled functions, if they take these, on a CPU and each for itself."""
    dense = inputs.is_contiguous() or inputs.is_contiguous(memory_format=torch.channels_last)
    taken = dense and inputs.dtype in kernels.TYPES and inputs.numel() % kernels.LANES == 0
    return kernels.available() if taken else None


def _compiled_for_images(inputs: torch.Tensor) -> Kernels | None:
    """The compiled functions, if they take these images (n, channels, height, width) of two pixels or more."""
    taken = (
        inputs.dim() == 4
        and inputs.device.type == "cpu"
        and inputs.dtype in kernels.TYPES
        and inputs.shape[1] % kernels.LANES == 0
        and inputs.numel() > inputs.shape[1]
        and inputs.is_contiguous(memory_format=torch.channels_last)
    )
    return kernels.available() if taken else None


def _in_order_of(inputs: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """The gradients in the inputs' order in memory."""
    if gradients.stride() == inputs.stride():
        return gradients
    return torch.empty_like(inputs).copy_(gradients)
