"""The layers are torch's own, whether the compiled functions do them or not."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from cifar_mlflow.learning import kernels
from cifar_mlflow.learning.layers import BatchNorm2d, Flatten, MaxPool2d, PReLU

TYPES = [torch.float32, torch.bfloat16]
CAPABILITIES = {"generic": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}


def _capability():
    return torch.backends.cpu.get_cpu_capability()


@pytest.fixture(params=[*CAPABILITIES, "torch"])
def level(request, monkeypatch):
    """The compiled functions for each kind of processor up to this one, and torch's."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "available", lambda: None)
        return request.param
    if kernels.available() is None:
        pytest.skip("the package was installed without a C compiler")
    here = kernels.available().level
    if list(CAPABILITIES).index(request.param) > list(CAPABILITIES).index(here):
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: CAPABILITIES[request.param])
    library = kernels.Kernels(kernels.library_path())
    assert library.level == request.param
    monkeypatch.setattr(kernels, "available", lambda: library)
    return request.param


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


def assert_close(ours, torchs, dtype, exact=0):
    """The first `exact` to the last bit."""
    for i, (one, other) in enumerate(zip(ours, torchs, strict=True)):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if i < exact:
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


class TestPReLU:
    @pytest.mark.usefixtures("level")
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("slope", [0.25, 0.0, -0.375, 1.5])
    @pytest.mark.parametrize("shape", [(6, 16, 8, 8), (6, 100), (3, 3, 5, 5), (40, 32, 16, 16)])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_equals_torchs(self, dtype, slope, shape, channels_last):
        inputs = images(shape, dtype, channels_last)
        inputs[0, 0] = 0  # where the slope changes
        ours = results(PReLU(init=slope), inputs)
        # torch's takes no slope of another type than the inputs; these slopes are exact in both.
        torchs = results(nn.PReLU(init=slope).to(dtype), inputs)
        torchs[2] = torchs[2].float()
        assert_close(ours[:2], torchs[:2], dtype, exact=2)
        # A sum over all elements, in another order; torch rounds it to the slope's type.
        torch.testing.assert_close(ours[2], torchs[2], rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=0.3)

    @pytest.mark.usefixtures("level")
    def test_takes_a_gradient_in_another_memory_order(self):
        inputs = images((4, 16, 6, 6))
        assert_close(results(PReLU(), inputs, False), results(nn.PReLU(), inputs, False), torch.float32, exact=2)

    @pytest.mark.usefixtures("level")
    def test_takes_a_single_gradient_spread_over_all(self):
        gradients = []
        for module in (PReLU(), nn.PReLU()):
            inputs = images((4, 16, 6, 6)).requires_grad_()
            module.train()(inputs).sum().backward()
            gradients += [inputs.grad]
        assert gradients[0].equal(gradients[1])

    @pytest.mark.usefixtures("level")
    def test_hands_on_what_is_not_a_number(self):
        inputs = images((2, 16, 4, 4))
        inputs[0, :, 0, 0], inputs[1, :, 1, 1] = torch.nan, torch.inf
        assert_close(results(PReLU(), inputs)[:2], results(nn.PReLU(), inputs)[:2], torch.float32, exact=2)


class TestBatchNorm2d:
    @pytest.mark.usefixtures("level")
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("shape", [(6, 16, 8, 8), (40, 32, 16, 16), (3, 64, 1, 1), (5, 48, 7, 3), (4, 10, 4, 4)])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_equals_torchs(self, dtype, shape, channels_last):
        inputs = images(shape, dtype, channels_last) * 3 + 1
        made = []
        for module in (BatchNorm2d(shape[1]), nn.BatchNorm2d(shape[1])):
            with torch.no_grad():
                module.weight.copy_(torch.linspace(-1, 2, shape[1]))
                module.bias.copy_(torch.linspace(1, -2, shape[1]))
            first = results(module, inputs)
            made.append(first + results(module, inputs + 1))
        assert_close(*made, dtype)
        assert [tensor.is_contiguous() for tensor in made[0][:2]] == [tensor.is_contiguous() for tensor in made[1][:2]]

    def test_keeps_its_precision_far_from_zero(self, level):
        inputs = images((32, 16, 16, 16)).double() + 1000
        exact = torch.nn.functional.batch_norm(inputs, None, None, training=True)
        outputs = BatchNorm2d(16).train()(inputs.float().contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(outputs.double(), exact, rtol=0, atol=5e-3 if level == "torch" else 5e-4)

    @pytest.mark.usefixtures("level")
    def test_takes_a_gradient_in_another_memory_order(self):
        inputs = images((4, 16, 6, 6))
        ours, torchs = (results(kind(16), inputs, False) for kind in (BatchNorm2d, nn.BatchNorm2d))
        assert_close(ours, torchs, torch.float32)

    @pytest.mark.usefixtures("level")
    def test_refuses_a_single_pixel_as_torchs(self):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            BatchNorm2d(16).train()(images((1, 16, 1, 1)))


class TestMaxPool2d:
    @pytest.mark.usefixtures("level")
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("shape", [(6, 16, 8, 8), (40, 32, 16, 16), (3, 48, 7, 9), (5, 16, 2, 6), (4, 10, 4, 4)])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_equals_torchs(self, dtype, shape, channels_last):
        inputs = images(shape, dtype, channels_last)
        inputs[:, ::3] = inputs[:, ::3].round()  # many equals, of which the first counts
        assert_close(results(MaxPool2d(), inputs), results(nn.MaxPool2d(2), inputs), dtype, exact=2)

    @pytest.mark.usefixtures("level")
    @pytest.mark.parametrize("place", range(4))
    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_equals_torchs_for_what_is_no_finite_number(self, place, value):
        inputs = images((2, 16, 4, 4))
        inputs[0, :, place // 2, place % 2] = value
        inputs[1, :, :, 2:] = value
        assert_close(results(MaxPool2d(), inputs), results(nn.MaxPool2d(2), inputs), torch.float32, exact=2)


@pytest.mark.parametrize("kind", [PReLU, lambda: BatchNorm2d(32), MaxPool2d])
@pytest.mark.parametrize("dtype", TYPES)
def test_any_number_of_threads_comes_to_the_same_bits(kind, dtype, level):
    if level == "torch":
        pytest.skip("torch's own functions are another matter")
    inputs, threads, made = images((37, 32, 18, 18), dtype), torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            made.append(results(kind(), inputs))
    finally:
        torch.set_num_threads(threads)
    for one, other, third in zip(*made, strict=True):
        assert one.equal(other)
        assert one.equal(third)


@pytest.mark.parametrize(
    ("kind", "function"), [(PReLU, "PReLU"), (lambda: BatchNorm2d(16), "BatchNorm"), (MaxPool2d, "MaxPool")]
)
def test_the_compiled_functions_are_in_use_while_training_alone(kind, function):
    if kernels.available() is None:
        pytest.skip("the package was installed without a C compiler")
    inputs = images((4, 16, 4, 4)).requires_grad_()
    assert f"Compiled{function}" in type(kind().train()(inputs).grad_fn).__name__
    assert "Compiled" not in type(kind().eval()(inputs).grad_fn).__name__


class TestKernels:
    def test_keep_to_what_torch_is_told_of_the_processor(self):
        if kernels.available() is None:
            pytest.skip("the package was installed without a C compiler")
        program = (
            "import torch; from cifar_mlflow.learning import kernels; print(kernels.describe(torch.device('cpu')))"
        )
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env={"ATEN_CPU_CAPABILITY": "default"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout == "compiled for generic\n"

    @pytest.mark.parametrize("damage", [b"", b"no library"])
    def test_that_cannot_be_loaded_leave_torchs(self, damage, tmp_path, monkeypatch):
        path = tmp_path / "_kernels.so"
        path.write_bytes(damage)
        monkeypatch.setattr(kernels, "library_path", lambda: str(path))
        kernels.available.cache_clear()
        try:
            assert kernels.available() is None
            assert kernels.describe(torch.device("cpu")) == "torch"
        finally:
            kernels.available.cache_clear()

    def test_of_another_version_leave_torchs(self, monkeypatch):
        if kernels.available() is None:
            pytest.skip("the package was installed without a C compiler")
        monkeypatch.setattr(kernels, "_VERSION", 0)
        with pytest.raises(OSError, match="another version"):
            kernels.Kernels(kernels.library_path())


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
