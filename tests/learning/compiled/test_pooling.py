"""The pooling is torch's own to the last bit, whether the compiled functions do it or not."""

import pytest
import torch
from layer_results import calls, images, named, results
from torch import nn

from cifar_mlflow.learning.compiled.pooling import MaxPool2d


@pytest.mark.usefixtures("level")
class TestMaxPool2d:
    @pytest.mark.long
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("shape", [(1, 16, 2, 2), (3, 48, 8, 6), (5, 16, 7, 9), (2, 32, 2, 3), (40, 64, 31, 31)])
    def test_equals_torchs(self, shape, dtype, level):
        given = images(shape, dtype)
        with calls() as call:
            ours = results(MaxPool2d(2), given)
        assert named(call) == ["pool_forward", "pool_backward"] * (level != "torch")
        for one, other in zip(ours, results(nn.MaxPool2d(2), given), strict=True):
            assert one.equal(other)
            assert one.is_contiguous(memory_format=torch.channels_last)

    def test_of_equals_the_first_has_the_gradient(self):
        _, gradients = results(MaxPool2d(2), torch.ones(2, 16, 4, 4).to(memory_format=torch.channels_last))
        assert gradients[:, :, ::2, ::2].ne(0).all()
        assert gradients.ne(0).sum() == gradients.numel() / 4

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_what_is_no_finite_number_is_torchs_too(self, value):
        given = images((2, 16, 8, 8))
        given[1, 3, 2, 5] = given[0, 7, :2, :2] = value
        for one, other in zip(results(MaxPool2d(2), given), results(nn.MaxPool2d(2), given), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)

    def test_takes_a_gradient_in_another_memory_order(self):
        given = images((4, 16, 8, 8))
        for ordered, other in zip(
            results(MaxPool2d(2), given), results(MaxPool2d(2), given, gradient_in_order=False), strict=True
        ):
            assert ordered.equal(other)

    @pytest.mark.parametrize(
        ("pooling", "given"),
        [
            (MaxPool2d(3), images((2, 16, 9, 9))),
            (MaxPool2d(2, stride=1), images((2, 16, 8, 8))),
            (MaxPool2d(2, padding=1), images((2, 16, 8, 8))),
            (MaxPool2d(2, ceil_mode=True), images((2, 16, 9, 9))),
            (MaxPool2d(2).eval(), images((2, 16, 8, 8))),
            (MaxPool2d(2), images((2, 24, 8, 8))),
            (MaxPool2d(2), images((2, 16, 8, 8), torch.float64)),
            (MaxPool2d(2), images((2, 16, 8, 8), channels_last=False)),
            (MaxPool2d(2), images((16, 8, 8))),
        ],
    )
    def test_others_are_torchs(self, pooling, given):
        with calls() as call:
            assert pooling(given).equal(nn.MaxPool2d.forward(pooling, given))
        assert not call.called

    def test_tells_of_images_that_are_too_small_as_torch(self):
        with pytest.raises(RuntimeError, match="too small"):
            MaxPool2d(2)(images((2, 16, 1, 8)))
