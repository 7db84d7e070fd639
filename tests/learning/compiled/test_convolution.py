"""The convolution is torch's own, whether the compiled functions do it or not."""

import copy

import pytest
import torch
from layer_results import calls, images, named, results
from torch import nn

from cifar_mlflow.learning.compiled import bindings
from cifar_mlflow.learning.compiled.convolution import Conv2d


def both(inputs, outputs, shape, *, bias=True, kind=Conv2d):
    """Results of our convolution and of torch's in float64, relative to the latter's largest."""
    torch.manual_seed(3)
    ours = kind(inputs, outputs, 3, padding=1, bias=bias)
    exact = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).double()
    exact.load_state_dict(ours.state_dict())
    given = images((shape[0], inputs, *shape[1:]))
    found = results(ours.to(memory_format=torch.channels_last), given)
    return [
        ((one.double() - other) / other.abs().max(), one)
        for one, other in zip(found, results(exact, given.double()), strict=True)
    ]


def assert_not_hidden(convolution, value):
    """One input pixel of `value` shows in what depends on it, and there alone."""
    given = images((2, convolution.in_channels, 8, 8))
    given[1, 3, 2, 5] = value
    outputs, gradient, weight_gradient, _ = results(convolution, given)
    assert not outputs[1, :, 1:4, 4:7].isfinite().any()
    assert outputs[0].isfinite().all()
    assert gradient.isfinite().all()
    assert not weight_gradient[:, 3].isfinite().any()


@pytest.mark.usefixtures("level")
class TestConv2d:
    @pytest.mark.long
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("channels", [(16, 16), (8, 32), (24, 64), (48, 16), (64, 80)])
    @pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 8), (9, 32, 32), (2, 7, 6), (40, 15, 3), (2, 3, 31)])
    def test_equals_torchs(self, channels, shape, bias):
        for errors, _ in both(*channels, shape, bias=bias):
            assert errors.abs().max() < 5e-5

    @pytest.mark.long
    def test_of_few_and_of_many_tiles(self):
        for number in (1, 23, 24, 25, 95, 96, 97, 200):
            for errors, _ in both(16, 16, (number, 4, 4)):
                assert errors.abs().max() < 5e-5

    def test_is_exact_on_whole_numbers_but_for_rounding(self):
        convolution = Conv2d(16, 16, 3, padding=1)
        with torch.no_grad():
            convolution.weight.copy_(torch.randint(-3, 4, convolution.weight.shape))
            convolution.bias.copy_(torch.arange(16))
        given = images((5, 16, 9, 10)).round()
        exact = nn.functional.conv2d(given, convolution.weight, convolution.bias, padding=1)
        assert convolution.train()(given).round().equal(exact)

    @pytest.mark.long
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("inputs", [1, 3, 24])
    @pytest.mark.parametrize("shape", [(6, 31, 31), (1, 4, 4), (3, 7, 13), (70, 8, 8)])
    def test_does_without_the_gradient_of_the_images(self, inputs, shape, bias, level):
        ours = Conv2d(inputs, 64, 3, padding=1, bias=bias).to(memory_format=torch.channels_last).train()
        exact = copy.deepcopy(ours).double()
        given = images((shape[0], inputs, *shape[1:]))
        with calls() as call:
            ours(given).square().sum().backward()
        expected = ["convolution_forward", "convolution_backward"][inputs < 8 :]
        assert named(call) == ([] if level == "torch" else expected)
        exact(given.double()).square().sum().backward()
        for parameter, other in zip(ours.parameters(), exact.parameters(), strict=True):
            assert (parameter.grad - other.grad).abs().max() < 5e-5 * other.grad.abs().max()

    def test_leaves_frozen_weights_alone(self):
        torch.manual_seed(1)
        frozen, given = Conv2d(16, 32, 3, padding=1).requires_grad_(False), images((4, 16, 8, 8)).requires_grad_()
        gradient = images((4, 32, 8, 8), seed=2)
        frozen(given).backward(gradient)
        torch.testing.assert_close(
            given.grad, nn.grad.conv2d_input(given.shape, frozen.weight, gradient, padding=1), rtol=1e-3, atol=1e-4
        )
        assert frozen.weight.grad is None

    def test_takes_a_gradient_in_another_memory_order(self):
        torch.manual_seed(1)
        convolution, given = Conv2d(16, 32, 3, padding=1), images((4, 16, 8, 8))
        for ordered, other in zip(
            results(convolution, given), results(copy.deepcopy(convolution), given, False), strict=True
        ):
            torch.testing.assert_close(ordered, other, rtol=1e-4, atol=1e-4)

    @pytest.mark.long
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_what_is_no_finite_number_is_not_hidden(self, value):
        assert_not_hidden(Conv2d(16, 16, 3, padding=1), value)

    @pytest.mark.long
    def test_any_number_of_threads_comes_to_the_same_bits(self, level):
        if level == "torch":
            pytest.skip("torch's own functions are another matter")
        threads, made = torch.get_num_threads(), []
        torch.manual_seed(1)
        first, given = Conv2d(3, 16, 3, padding=1).train(), images((37, 3, 18, 18))
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                first.zero_grad()
                first(given).backward(images((37, 16, 18, 18), seed=2))
                gradients = [parameter.grad.clone() for parameter in first.parameters()]
                made.append([*gradients, *(found for _, found in both(32, 48, (37, 18, 18)))])
        finally:
            torch.set_num_threads(threads)
        for one, other, third in zip(*made, strict=True):
            assert one.equal(other)
            assert one.equal(third)

    @pytest.mark.long
    @pytest.mark.parametrize(
        ("convolution", "shape"),
        [
            (Conv2d(16, 16, 3), (2, 16, 8, 8)),
            (Conv2d(16, 16, 5, padding=1), (2, 16, 8, 8)),
            (Conv2d(16, 16, 3, padding="same"), (2, 16, 8, 8)),
            (Conv2d(16, 16, 3, padding=1, stride=2), (2, 16, 8, 8)),
            (Conv2d(16, 16, 3, padding=1, dilation=2), (2, 16, 8, 8)),
            (Conv2d(16, 16, 3, padding=1, groups=4), (2, 16, 8, 8)),
            (Conv2d(16, 16, 3, padding=1, padding_mode="reflect"), (2, 16, 8, 8)),
            (Conv2d(3, 16, 3, padding=1), (2, 3, 8, 8)),  # of which the images' gradient is asked for
            (Conv2d(12, 16, 3, padding=1), (2, 12, 8, 8)),
            (Conv2d(16, 24, 3, padding=1), (2, 16, 8, 8)),
            (Conv2d(16, 10, 3, padding=1), (2, 16, 8, 8)),
            (Conv2d(16, 16, 3, padding=1), (16, 8, 8)),
            (Conv2d(16, 16, 3, padding=1), (4, 16, 1, 1)),
            (Conv2d(16, 16, 3, padding=1).double(), (2, 16, 8, 8)),
            (Conv2d(16, 16, 3, padding=1).eval(), (2, 16, 8, 8)),
        ],
    )
    def test_others_are_torchs(self, convolution, shape):
        given = images(shape, convolution.weight.dtype).requires_grad_()
        with calls() as call:
            outputs = convolution(given)
        assert outputs.equal(nn.Conv2d.forward(convolution, given))
        assert not call.called

    def test_images_in_another_memory_order_are_torchs(self):
        convolution, given = Conv2d(16, 16, 3, padding=1), images((2, 16, 8, 8), channels_last=False)
        assert convolution(given).equal(nn.Conv2d.forward(convolution, given))

    def test_of_few_channels_is_torchs_under_autocast(self):
        convolution, given = Conv2d(16, 16, 3, padding=1), images((2, 16, 8, 8))
        with torch.autocast("cpu", torch.bfloat16), calls() as call:
            assert convolution(given).dtype == torch.bfloat16
        assert not call.called

    def test_tells_of_a_wrong_number_of_channels_as_torch(self):
        with pytest.raises(RuntimeError, match="channels"):
            Conv2d(16, 16, 3, padding=1)(images((2, 32, 8, 8)))


class InBfloat16(Conv2d):
    """As a training calls it."""

    def forward(self, input):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(input)


def bfloat16_images(shape):
    """Whole numbers of few digits, which bfloat16 has all of."""
    return (4 * images(shape)).round().to(torch.bfloat16)


class TestInBfloat16:
    @pytest.fixture(autouse=True)
    def _only_where_compiled(self):
        compiled = bindings.available()
        if compiled is None or not compiled.convolves_bfloat16:
            pytest.skip("no functions were compiled for bfloat16, or this processor does not multiply it")

    @pytest.mark.long
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("channels", [(24, 64), (32, 48), (64, 80), (40, 32)])
    @pytest.mark.parametrize("shape", [(1, 2, 2), (3, 8, 8), (9, 31, 31), (2, 7, 6), (40, 15, 3), (2, 2, 31)])
    def test_equals_torchs_but_for_rounding(self, channels, shape, bias):
        with calls() as call:
            found = both(*channels, shape, bias=bias, kind=InBfloat16)
        assert call.call_count == 3
        for errors, one in found:
            assert errors.abs().max() < 0.04
            assert errors.square().mean().sqrt() < 0.005
            assert one.dtype == torch.float32 or one is found[0][1]

    @pytest.mark.long
    def test_of_few_and_of_many_tiles(self):
        for number in (1, 11, 13, 47, 48, 49, 97, 191, 192, 193, 400):
            for errors, _ in both(32, 32, (number, 2, 2), kind=InBfloat16):
                assert errors.square().mean().sqrt() < 0.005

    def test_is_exact_on_whole_numbers(self):
        convolution = InBfloat16(32, 32, 3, padding=1).train()
        with torch.no_grad():
            convolution.weight.copy_(4 * torch.randint(-3, 4, convolution.weight.shape))
            convolution.bias.copy_(torch.arange(32))
        given = bfloat16_images((5, 32, 9, 10))
        exact = nn.functional.conv2d(given.double(), convolution.weight.double(), convolution.bias.double(), padding=1)
        assert convolution(given).equal(exact.to(torch.bfloat16))

    @pytest.mark.long
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_what_is_no_finite_number_is_not_hidden(self, value):
        assert_not_hidden(InBfloat16(32, 32, 3, padding=1), value)

    @pytest.mark.long
    def test_any_number_of_threads_comes_to_the_same_bits(self):
        threads, made = torch.get_num_threads(), []
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                made.append([found for _, found in both(32, 48, (37, 18, 18), kind=InBfloat16)])
        finally:
            torch.set_num_threads(threads)
        for one, other, third in zip(*made, strict=True):
            assert one.equal(other)
            assert one.equal(third)

    @pytest.mark.long
    @pytest.mark.parametrize(
        ("convolution", "shape", "dtype"),
        [
            (Conv2d(16, 32, 3, padding=1), (2, 16, 8, 8), torch.bfloat16),
            (Conv2d(32, 16, 3, padding=1), (2, 32, 8, 8), torch.bfloat16),
            (Conv2d(3, 32, 3, padding=1), (2, 3, 8, 8), torch.bfloat16),
            (Conv2d(32, 32, 3, padding=1), (2, 32, 1, 1), torch.bfloat16),
            (Conv2d(32, 32, 3, padding=1).bfloat16(), (2, 32, 8, 8), torch.bfloat16),
            (Conv2d(32, 32, 3, padding=1), (2, 32, 8, 8), torch.float16),
            (Conv2d(32, 32, 3, padding=1).eval(), (2, 32, 8, 8), torch.bfloat16),
        ],
    )
    def test_others_are_torchs(self, convolution, shape, dtype):
        given = images(shape)
        with torch.autocast("cpu", dtype), calls() as call:
            assert convolution(given).equal(nn.Conv2d.forward(convolution, given))
        assert not call.called

    def test_without_autocast_the_types_must_agree(self):
        with calls() as call, pytest.raises(RuntimeError, match="BFloat16"):
            Conv2d(32, 32, 3, padding=1)(images((2, 32, 8, 8), torch.bfloat16))
        assert not call.called

    @pytest.mark.parametrize(("feature", "there"), [("avx512_bf16", False), ("amx_tile", True)])
    def test_a_processor_that_does_not_multiply_it_or_has_better_has_torchs(self, monkeypatch, feature, there):
        monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda: there)
        monkeypatch.setattr(bindings, "available", lambda: bindings.Kernels(bindings.library_path()))
        convolution, given = InBfloat16(32, 32, 3, padding=1), images((2, 32, 8, 8))
        with calls() as call:
            assert convolution(given).dtype == torch.bfloat16
        assert not call.called
