"""What the tests of layers compare."""

import torch


def images(shape, dtype=torch.float32, channels_last=True, seed=1):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return values.to(memory_format=torch.channels_last) if channels_last and values.dim() == 4 else values


def results(module, inputs, gradient_in_order=True):
    """Outputs, then the gradients of inputs and parameters, then the buffers."""
    inputs = inputs.clone().requires_grad_()
    outputs = module.train()(inputs)
    gradient = images(outputs.shape, outputs.dtype, gradient_in_order, seed=2)
    outputs.backward(gradient)
    parameters = [parameter.grad for parameter in module.parameters()]
    return [outputs.detach(), inputs.grad, *parameters, *(buffer.clone() for buffer in module.buffers())]


def assert_close(ours, torchs):
    for one, other in zip(ours, torchs, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        torch.testing.assert_close(one, other, rtol=5e-4, atol=1e-4)
