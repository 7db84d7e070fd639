"""The network is the report's."""

import pytest
import torch
from torch import nn

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.networks.build import ACTIVATIONS, build
from cifar_mlflow.learning.networks.preprocessing import Preprocessing

CIFAR = (32, 32, 3)


def network(classes=10, shape=CIFAR, **values):
    torch.manual_seed(0)
    return build(resolve(values), classes, shape)


def kinds(module):
    return [type(layer).__name__ for layer in module.children()]


class TestReportCnn:
    def test_has_the_layers_of_the_printed_model(self):
        block = ["Conv2d", "PReLU", "Dropout2d", "BatchNorm2d"]
        head = ["Flatten", "Linear", "PReLU", "Dropout", "BatchNorm1d", "Linear"]
        assert kinds(network()) == [*block, *block, "MaxPool2d", *block, "MaxPool2d", *head]

    def test_has_the_sizes_of_the_printed_model(self):
        convolutions = [layer for layer in network() if isinstance(layer, nn.Conv2d)]
        assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [(3, 16), (16, 32), (32, 64)]
        assert all(layer.kernel_size == (3, 3) and layer.padding == (1, 1) for layer in convolutions)
        linear = [layer for layer in network() if isinstance(layer, nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in linear] == [(4096, 100), (100, 10)]

    def test_drops_with_the_probability_given(self):
        dropouts = [layer for layer in network(dropout=0.35) if isinstance(layer, nn.Dropout | nn.Dropout2d)]
        assert [layer.p for layer in dropouts] == [0.35] * 4

    def test_can_do_without_batch_norm(self):
        assert not any("BatchNorm" in kind for kind in kinds(network(batch_norm=False)))

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_has_the_activation_asked_for(self, name):
        kind = type(ACTIVATIONS[name]())
        assert sum(type(layer) is kind for layer in network(activation=name)) == 4

    @pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (8, 8, 3), (9, 13, 1), (4, 4, 1)])
    def test_takes_images_of_any_size(self, shape):
        height, width, channels = shape
        assert network(5, shape)(torch.zeros(2, channels, height, width)).shape == (2, 5)

    @pytest.mark.parametrize(("scheme", "gain"), [("kaiming", 2 / 4096), ("xavier", 2 / (4096 + 100))])
    def test_is_initialized_as_asked(self, scheme, gain):
        (first, last) = (layer for layer in network(weight_init=scheme) if isinstance(layer, nn.Linear))
        assert first.weight.var().item() == pytest.approx(gain, rel=0.02)
        assert first.bias.abs().sum() == last.bias.abs().sum() == 0

    def test_keeps_torchs_own_initialization_by_default(self):
        torch.manual_seed(0)
        expected = nn.Conv2d(3, 16, 3, padding=1)
        assert network()[0].weight.equal(expected.weight)


class TestPreprocessing:
    def test_scales_bytes_to_one(self):
        images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1)
        assert Preprocessing((0.0,), (1.0,))(images).flatten().tolist() == pytest.approx([0, 0.2, 1])

    def test_standardizes_each_channel(self):
        images = torch.randint(0, 256, (50, 9, 9, 3), dtype=torch.uint8)
        shares = images.double() / 255
        mean, deviation = shares.mean((0, 1, 2)), shares.std((0, 1, 2), correction=0)
        values = Preprocessing(mean.tolist(), deviation.tolist())(images)
        torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)

    def test_gives_channels_last_in_memory(self):
        values = Preprocessing((0.0,), (1.0,))(torch.zeros(2, 4, 5, 3, dtype=torch.uint8))
        assert values.shape == (2, 3, 4, 5)
        assert values.is_contiguous(memory_format=torch.channels_last)
