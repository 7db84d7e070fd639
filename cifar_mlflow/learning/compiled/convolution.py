"""torch's Conv2d, trained faster on a CPU; the same but for rounding, and torch's in evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cifar_mlflow.learning.compiled import bindings
from cifar_mlflow.learning.compiled.bindings import Kernels, differentiable_once

# Pixels of output a side that are computed together.
TILE = {torch.float32: 4, torch.bfloat16: 2}
LEAST_CHANNELS = 24  # that are faster than torch's in bfloat16
CACHED_CHANNELS = 256  # above which, in float32, it takes twice as many tiles


class Conv2d(nn.Conv2d):
    """torch's Conv2d, which trains in half to three quarters of the time where it is 3 x 3 with a padding of one.

    By the functions of kernels.c, if they were compiled, for images on the CPU with their channels last in memory: in
    float32, and under autocast in bfloat16 if the processor multiplies it. What those do not take is left to torch:
    other options, numbers of channels that are no multiples of 8 and 16 (but for images of one or three), ...
    """

    least_tiles = 0
    """For how many the functions are taken."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        compiled = bindings.available() if self.training else None
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        if compiled is None or not self._is_taken(input) or not self._is_fast(input, dtype, compiled):
            return super().forward(input)
        output: torch.Tensor = _Convolution.apply(input.to(dtype), self.weight, self.bias, compiled)
        return output

    def _is_taken(self, input: torch.Tensor) -> bool:
        options = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return (
            options == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
            and bindings.takes(input)
            and self.weight.dtype == torch.float32
            and input.shape[1] == self.in_channels
            and self.out_channels % bindings.LANES == 0
            and (self.in_channels % 8 == 0 or self._is_first(input))
        )

    def _is_fast(self, input: torch.Tensor, dtype: torch.dtype, compiled: Kernels) -> bool:
        """Whether something is gained by the compiled functions for `dtype`, if there are any."""
        if dtype == torch.bfloat16:
            wide = min(self.in_channels, self.out_channels) >= LEAST_CHANNELS
            return wide and compiled.convolves_bfloat16 and _fills_tiles(input, TILE[dtype], self.least_tiles)
        # In float32 a tile takes 36 numbers for the nine of a weight: more than the processor's cache holds.
        many = max(self.in_channels, self.out_channels) > CACHED_CHANNELS
        return dtype == input.dtype == torch.float32 and _fills_tiles(input, TILE[dtype], self.least_tiles * (1 + many))

    def _is_first(self, input: torch.Tensor) -> bool:
        """Whether it takes the images themselves: then its weights' gradient alone is compiled."""
        return self.in_channels in (1, 3) and not input.requires_grad


class LargeConv2d(Conv2d):
    """The same where it pays to transform the weights; torch's where there are few tiles.

    For networks of any shape. The built-in ones take `Conv2d` for the smaller last batch of an epoch too, where it
    costs next to nothing, so that their results stay those of earlier versions to the last bit.
    """

    least_tiles = 128


def _fills_tiles(images: torch.Tensor, tile: int, least: int) -> bool:
    """Whether `least` tiles or more cover the images, which are at least half of them; of less, nothing is gained."""
    height, width = images.shape[2:]
    tiles = -(-height // tile) * -(-width // tile)
    return len(images) * tiles >= least and 2 * height * width >= tiles * tile**2 > 0


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, compiled: Kernels
    ) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        ctx.compiled = compiled
        if weight.shape[1] < 8:
            return nn.functional.conv2d(input, weight, bias, padding=1)
        return _convolve(input, weight.permute(2, 3, 1, 0), bias, compiled)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        # Of what was saved, hooks may have made copies in another order.
        input, gradients = (each.contiguous(memory_format=torch.channels_last) for each in (input, gradients))
        outputs, inputs = weight.shape[:2]
        input_gradient = None
        if ctx.needs_input_grad[0]:
            # The convolution from outputs to inputs, by the weights turned half round.
            input_gradient = _convolve(gradients, weight.flip(2, 3).permute(2, 3, 0, 1), None, ctx.compiled)
        if not any(ctx.needs_input_grad[1:3]):
            return input_gradient, None, None, None
        weight_gradient, bias_gradient = weight.new_empty(3, 3, inputs, outputs), weight.new_empty(outputs)
        ctx.compiled.convolution(
            "backward", input, outputs,
            output_gradient=gradients, weight_gradient=weight_gradient, bias_gradient=bias_gradient,
        )  # fmt: skip
        wanted = bias_gradient if ctx.needs_input_grad[2] else None
        return input_gradient, weight_gradient.permute(3, 2, 0, 1), wanted, None


def _convolve(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, compiled: Kernels) -> torch.Tensor:
    """`images` (n, inputs, height, width) by `weight` (3, 3, inputs, outputs)."""
    shape = (len(images), weight.shape[3], *images.shape[2:])
    output = torch.empty(shape, dtype=images.dtype, device="cpu", memory_format=torch.channels_last)
    weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
    compiled.convolution("forward", images, weight.shape[3], weight=weight, bias=bias, output=output)
    return output
