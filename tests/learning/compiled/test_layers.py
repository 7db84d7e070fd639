"""The layers are torch's own, whether the compiled functions do them or not."""

import copy
import functools
import os
import subprocess
import sys

import pytest
import torch
from layer_results import TYPES, assert_close, images, results
from torch import nn

from cifar_mlflow.learning.compiled import bindings
from cifar_mlflow.learning.compiled.layers import Flatten, PReLU, Sequential
from cifar_mlflow.learning.networks.build import ACTIVATIONS


def block(activation, dropout, pools, channels, kind=Sequential):
    """What follows a convolution, with weights that differ from one another."""
    normalization = nn.BatchNorm2d(channels)
    with torch.no_grad():
        normalization.weight.copy_(torch.linspace(-1, 2, channels))
        normalization.bias.copy_(torch.linspace(1, -2, channels))
    return kind(activation(), nn.Dropout2d(dropout), normalization, *([nn.MaxPool2d(2)] if pools else []))


def both(make, inputs, in_order=True):
    """Results of two steps of our Sequential and of torch's, with the same draws."""
    found = []
    for kind in (Sequential, nn.Sequential):
        torch.manual_seed(3)
        module = make(kind)
        found.append([*results(module, inputs, in_order), *results(module, inputs + 0.25, in_order)])
    return found


@pytest.mark.usefixtures("level")
class TestSequential:
    @pytest.mark.long
    @pytest.mark.parametrize("pools", [False, True])
    @pytest.mark.parametrize("dropout", [0.0, 0.35])
    @pytest.mark.parametrize(
        "shape", [(6, 16, 8, 8), (40, 32, 16, 16), (3, 64, 1, 1), (5, 48, 7, 3), (4, 10, 4, 4), (2, 16, 2, 6)]
    )
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_equals_torchs(self, pools, dropout, shape, channels_last):
        if pools and min(shape[2:]) < 2:
            pytest.skip("there is nothing to pool")
        inputs = images(shape, torch.float32, channels_last) * 3 + 1
        inputs[:, ::3] = inputs[:, ::3].round()  # many equals, of which the first counts
        make = functools.partial(block, nn.LeakyReLU, dropout, pools, shape[1])
        ours, torchs = both(lambda kind: make(kind=kind), inputs)
        assert_close(ours, torchs)
        assert [tensor.is_contiguous() for tensor in ours[:2]] == [tensor.is_contiguous() for tensor in torchs[:2]]

    @pytest.mark.long
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("pools", [False, True])
    def test_takes_any_activation(self, activation, pools):
        make = functools.partial(block, ACTIVATIONS[activation], 0.35, pools, 16)
        assert_close(*both(lambda kind: make(kind=kind), images((6, 16, 8, 8))))

    @pytest.mark.long
    @pytest.mark.parametrize("slope", [0.25, 0.0, -0.375, 1.5])
    @pytest.mark.parametrize("shape", [(6, 16, 8, 8), (40, 32, 16, 16)])
    def test_learns_the_slope(self, slope, shape):
        make = functools.partial(block, functools.partial(nn.PReLU, init=slope), 0.0, True, shape[1])
        assert_close(*both(lambda kind: make(kind=kind), images(shape)))

    @pytest.mark.parametrize("pools", [False, True])
    def test_bfloat16_is_no_further_from_the_truth_than_torchs(self, pools):
        inputs = images((40, 32, 16, 16), torch.bfloat16)
        module = functools.partial(block, PReLU, 0.0, pools, 32)
        truth = results(module(kind=nn.Sequential), inputs.float())
        ours = results(module(), inputs)
        torchs = results(module(kind=nn.Sequential), inputs)
        for exact, one, other in zip(truth[:5], ours[:5], torchs[:5], strict=True):
            error, allowed = ((exact - found.float()).abs().mean() for found in (one, other))
            assert error <= 1.05 * allowed + 1e-6

    def test_is_as_exact_under_autocast(self):
        inputs, found = images((20, 3, 16, 16)), []
        for kind, enabled in ((nn.Sequential, False), (Sequential, True), (nn.Sequential, True)):
            torch.manual_seed(4)
            module = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), block(PReLU, 0.0, True, 32, kind))
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                outputs = module.to(memory_format=torch.channels_last).train()(inputs)
            outputs.sum(0).square().sum().backward()
            found.append([outputs.detach(), *(parameter.grad for parameter in module.parameters())])
        for exact, ours, torchs in zip(*found, strict=True):
            assert ours.dtype == torchs.dtype
            error, allowed = ((exact - each.float()).abs().mean() for each in (ours, torchs))
            assert error <= 1.2 * allowed + 1e-6

    @pytest.mark.parametrize("size", [16, 512])
    def test_keeps_the_variance_of_a_channel_that_is_nearly_always_zero(self, size, level):
        inputs = torch.zeros(size, 16, 32, 32)
        inputs[:: size // 16, :, 0, 0] = images((16, 16)).abs()
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        normalization = nn.BatchNorm2d(16, momentum=1)
        Sequential(nn.ReLU(), nn.Dropout2d(0), normalization).train()(inputs)
        exact = inputs.double().var((0, 2, 3))
        torch.testing.assert_close(
            normalization.running_var.double(), exact, rtol=1e-2 if level == "torch" else 1e-5, atol=0
        )

    def test_keeps_its_precision_far_from_zero(self, level):
        inputs = images((32, 16, 16, 16)).double() + 1000
        exact = nn.functional.batch_norm(inputs, None, None, training=True)
        module = Sequential(nn.ReLU(), nn.Dropout2d(0), nn.BatchNorm2d(16)).train()
        outputs = module(inputs.float().contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(outputs.double(), exact, rtol=0, atol=5e-3 if level == "torch" else 5e-4)

    def test_takes_a_gradient_in_another_memory_order(self):
        make = functools.partial(block, PReLU, 0.0, True, 16)
        assert_close(*both(lambda kind: make(kind=kind), images((4, 16, 6, 6)), False))

    @pytest.mark.long
    @pytest.mark.parametrize("place", range(4))
    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("dtype", TYPES)
    def test_what_is_no_finite_number_is_not_hidden(self, place, value, dtype):
        inputs = images((2, 16, 4, 4), dtype)
        inputs[0, 3, place // 2, place % 2] = value
        make = functools.partial(block, PReLU, 0.0, True, 16)
        for ours, torchs in zip(*both(lambda kind: make(kind=kind), inputs), strict=True):
            assert ours.isfinite().equal(torchs.isfinite())

    def test_refuses_a_single_pixel_as_torchs(self):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            block(PReLU, 0.0, False, 16).train()(images((1, 16, 1, 1)))

    def test_is_torchs_own_in_evaluation(self):
        module, inputs = block(PReLU, 0.35, True, 16).eval(), images((4, 16, 4, 4))
        assert module(inputs).equal(nn.Sequential(*module)(inputs))

    @pytest.mark.parametrize(
        "layers",
        [
            [nn.PReLU(16), nn.Dropout2d(0), nn.BatchNorm2d(16)],
            [nn.Conv2d(16, 10, 1), nn.Dropout2d(0), nn.BatchNorm2d(10)],
            [nn.Dropout2d(0), nn.BatchNorm2d(16, affine=False)],
            [nn.Dropout2d(0), nn.BatchNorm2d(16, momentum=None)],
            [nn.Dropout2d(0), nn.BatchNorm2d(16, track_running_stats=False)],
            [nn.Dropout2d(0), nn.BatchNorm2d(16), nn.MaxPool2d(3)],
            [nn.Dropout2d(0), nn.BatchNorm2d(16), nn.MaxPool2d(2, stride=1)],
            [nn.Dropout2d(0), nn.BatchNorm2d(16), nn.MaxPool2d(2, padding=1)],
            [nn.ReLU(), nn.Dropout(0), nn.BatchNorm2d(16)],
            [nn.BatchNorm2d(16), nn.ReLU()],
            [nn.ReLU(), nn.Dropout2d(0)],
        ],
    )
    def test_other_layers_are_torchs(self, layers):
        inputs = images((4, 16, 8, 8))
        ours = results(Sequential(*copy.deepcopy(layers)), inputs)
        torchs = results(nn.Sequential(*copy.deepcopy(layers)), inputs)
        assert_close(ours, torchs)

    def test_a_layer_in_evaluation_stays_in_it(self):
        module, inputs = block(PReLU, 0.35, True, 16).train(), images((4, 16, 4, 4))
        module[1].eval()
        module[2].eval()
        assert module(inputs).equal(nn.Sequential(*module)(inputs))

    @pytest.mark.long
    @pytest.mark.parametrize("pools", [False, True])
    @pytest.mark.parametrize("dtype", TYPES)
    def test_any_number_of_threads_comes_to_the_same_bits(self, pools, dtype, level):
        if level == "torch":
            pytest.skip("torch's own functions are another matter")
        inputs, threads, made = images((37, 32, 18, 18), dtype), torch.get_num_threads(), []
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                made.append(results(block(PReLU, 0.0, pools, 32), inputs))
        finally:
            torch.set_num_threads(threads)
        for one, other, third in zip(*made, strict=True):
            assert one.equal(other)
            assert one.equal(third)


class TestPReLU:
    @pytest.mark.long
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("slope", [0.25, 0.0, -0.375, 1.5])
    @pytest.mark.parametrize("shape", [(6, 16, 8, 8), (6, 100)])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_equals_torchs(self, dtype, slope, shape, channels_last):
        inputs = images(shape, dtype, channels_last)
        inputs[0, 0] = 0  # where the slope changes
        ours = results(PReLU(init=slope), inputs)
        # torch's takes no slope of another type than the inputs; these are exact in both.
        torchs = results(nn.PReLU(init=slope).to(dtype), inputs)
        for i in range(2):
            torch.testing.assert_close(ours[i], torchs[i], rtol=0, atol=0)
        # A sum over all elements, in another order; torch rounds it to the slope's type.
        tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(ours[2], torchs[2].float(), rtol=tolerance, atol=0.3)

    def test_is_the_fast_one_while_training_on_a_cpu(self):
        inputs = torch.randn(3, requires_grad=True)
        assert "FastPReLU" in type(PReLU().train()(inputs).grad_fn).__name__
        assert "FastPReLU" not in type(PReLU().eval()(inputs).grad_fn).__name__

    def test_takes_a_gradient_in_another_memory_order(self):
        inputs = images((40, 32, 8, 8))
        assert_close(results(PReLU(), inputs, False), results(nn.PReLU(), inputs, False))


class TestKernels:
    def test_keep_to_what_torch_is_told_of_the_processor(self):
        if bindings.available() is None:
            pytest.skip("the package was installed without a C compiler")
        program = (
            "import torch; from cifar_mlflow.learning.compiled import bindings; "
            "print(bindings.describe(torch.device('cpu')))"
        )
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.startswith("compiled for generic by ")

    @pytest.mark.parametrize("damage", [b"", b"no library"])
    def test_that_cannot_be_loaded_leave_torchs(self, damage, tmp_path, monkeypatch):
        path = tmp_path / "_kernels.so"
        path.write_bytes(damage)
        monkeypatch.setattr(bindings, "library_path", lambda: str(path))
        bindings._found.cache_clear()
        try:
            assert bindings.available() is None
            assert bindings.describe(torch.device("cpu")) == "torch"
            assert bindings.fault().startswith(f"{path}: ")
        finally:
            bindings._found.cache_clear()

    def test_of_another_version_leave_torchs(self, monkeypatch):
        if bindings.available() is None:
            pytest.skip("the package was installed without a C compiler")
        monkeypatch.setattr(bindings, "_VERSION", 0)
        with pytest.raises(OSError, match="another version"):
            bindings.Kernels(bindings.library_path())


class TestFlatten:
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_hands_on_torchs_gradient_in_the_memory_order_of_the_images(self, channels_last):
        order = torch.channels_last if channels_last else torch.contiguous_format
        gradients = []
        for module in (Flatten(), nn.Flatten()):
            torch.manual_seed(1)
            inputs = torch.randn(4, 3, 8, 8, requires_grad=True).to(memory_format=order)
            pooled = nn.functional.max_pool2d(inputs, 2)
            outputs = module.train()(pooled)
            pooled.register_hook(gradients.append)
            outputs.backward(torch.randn_like(outputs))
        ours, torchs = gradients
        assert ours.equal(torchs)
        assert ours.is_contiguous(memory_format=order)
