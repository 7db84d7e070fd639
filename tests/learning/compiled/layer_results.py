"""What the tests of layers compare, over which examples, and by the functions for which processors."""

import functools
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cifar_mlflow.learning.compiled import bindings

CAPABILITIES = {"generic": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}
TYPES = [torch.float32, torch.bfloat16]


@functools.cache
def libraries():
    """The compiled functions, by the kind of processor, for each kind up to this one."""
    here = bindings.available()
    names = [] if here is None else list(CAPABILITIES)[: list(CAPABILITIES).index(here.level) + 1]
    found = {}
    for name in names:
        with mock.patch.object(torch.backends.cpu, "get_cpu_capability", return_value=CAPABILITIES[name]):
            found[name] = bindings.Kernels(bindings.library_path())
        assert found[name].level == name
    return found


LIBRARIES = st.sampled_from([*libraries().values()] or [None])
SEEDS = st.integers(0, 2**16)
needs_compiled = pytest.mark.skipif(not libraries(), reason="the package was installed without a C compiler")


def examples(quick, thorough, **strategies):
    """The test with `quick` examples, always the same, and, marked long, with `thorough` ones, always others."""

    def decorate(test):
        @pytest.mark.parametrize("number", [quick, pytest.param(thorough, marks=pytest.mark.long)])
        def many_times(number):
            checks = settings(
                max_examples=number,
                derandomize=number == quick,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            checks(given(**strategies)(test))()

        return many_times

    return decorate


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


def distance(one, truth):
    """Root mean square of the errors, in shares of the truth's."""
    size = truth.double().square().mean().sqrt()
    return float((one.double() - truth.double()).square().mean().sqrt() / (size + 1e-30))


def calls():
    """Records the compiled functions that are called; `named` tells their names."""
    return mock.patch.object(bindings.Kernels, "_call", autospec=True, side_effect=bindings.Kernels._call)


def named(call):
    return [each.args[1] for each in call.call_args_list]


class Threads:
    """torch with that many threads."""

    def __init__(self, number):
        self.number, self.before = number, torch.get_num_threads()

    def __enter__(self):
        torch.set_num_threads(self.number)

    def __exit__(self, *error):
        torch.set_num_threads(self.before)
