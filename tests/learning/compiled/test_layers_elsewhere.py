"""The layers outside our networks: whatever their surroundings, they are torch's own or refuse."""

import copy

import pytest
import torch
from layer_results import assert_close, images, results
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cifar_mlflow.learning.compiled.convolution import Conv2d
from cifar_mlflow.learning.compiled.layers import Flatten, PReLU, Sequential
from cifar_mlflow.learning.compiled.pooling import MaxPool2d

SHAPE = (4, 16, 8, 8)
LAYERS = {
    "convolution": (lambda: Conv2d(16, 32, 3, padding=1), lambda: nn.Conv2d(16, 32, 3, padding=1)),
    "pooling": (lambda: MaxPool2d(2), lambda: nn.MaxPool2d(2)),
    "activation": (PReLU, nn.PReLU),
    "block": (
        lambda: Sequential(PReLU(), nn.Dropout2d(0), nn.BatchNorm2d(16), MaxPool2d(2)),
        lambda: nn.Sequential(nn.PReLU(), nn.Dropout2d(0), nn.BatchNorm2d(16), nn.MaxPool2d(2)),
    ),
}
pytestmark = pytest.mark.usefixtures("level")


@pytest.fixture(params=LAYERS)
def pair(request):
    """One of our layers and torch's, with the same weights, in training."""
    ours, torchs = (make().to(memory_format=torch.channels_last).train() for make in LAYERS[request.param])
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def reordered(tensor):
    """A copy in torch's usual memory order, as `save_on_cpu` makes."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


def second_derivative(layer):
    inputs = images(SHAPE).requires_grad_()
    (first,) = torch.autograd.grad(layer(inputs).square().sum(), inputs, create_graph=True)
    return torch.autograd.grad(first.square().sum(), inputs)[0]


def test_a_second_derivative_is_refused_or_torchs(pair, level):
    ours, torchs = pair
    if level != "torch" or isinstance(ours, PReLU | Sequential):
        with pytest.raises(RuntimeError, match="no second derivative"):
            second_derivative(ours)
    else:
        assert second_derivative(ours).equal(second_derivative(torchs))


def test_what_is_saved_may_come_back_in_another_order(pair):
    with torch.autograd.graph.saved_tensors_hooks(reordered, lambda tensor: tensor):
        ours = results(pair[0], images(SHAPE))
    assert_close(ours, results(pair[1], images(SHAPE)))


def test_torchs_defaults_may_be_others(pair):
    given, before = images(SHAPE), torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            ours = pair[0](given)
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(ours, pair[1](given), rtol=5e-4, atol=1e-4)


def test_tensors_without_numbers_are_torchs(pair):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        ours, torchs = (layer(mode.from_tensor(images(SHAPE))) for layer in pair)
    assert (ours.shape, ours.dtype, ours.stride()) == (torchs.shape, torchs.dtype, torchs.stride())


def test_a_bias_may_be_one_number_for_all_channels():
    ours, torchs = (kind(16, 32, 3, padding=1).train() for kind in (Conv2d, nn.Conv2d))
    for layer in (ours, torchs):
        nn.init.ones_(layer.weight)
        layer.bias = nn.Parameter(torch.full((1,), 0.5).expand(32))
    torch.testing.assert_close(ours(images(SHAPE)), torchs(images(SHAPE)), rtol=5e-4, atol=1e-4)


class Tripled(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input) * 3


@pytest.mark.parametrize("normalization", [Tripled(16), nn.BatchNorm2d(16, bias=False)])
def test_what_is_derived_or_lacks_its_bias_is_torchs(normalization):
    layers = [PReLU(), nn.Dropout2d(0), normalization, MaxPool2d(2)]
    ours = results(Sequential(*copy.deepcopy(layers)), images(SHAPE))
    assert_close(ours, results(nn.Sequential(*copy.deepcopy(layers)), images(SHAPE)))


def test_a_slope_of_another_type_is_torchs():
    layers = [nn.PReLU().bfloat16(), nn.Dropout2d(0), nn.BatchNorm2d(16)]
    given = images(SHAPE, torch.bfloat16)
    ours = results(Sequential(*copy.deepcopy(layers)), given)
    assert_close(ours, results(nn.Sequential(*layers), given))


def test_an_activation_in_place_is_one():
    given = images(SHAPE)
    Sequential(nn.ReLU(inplace=True), nn.Dropout2d(0), nn.BatchNorm2d(16)).train()(given)
    assert given.min() == 0


def test_a_slope_for_each_channel_is_torchs():
    assert_close(results(PReLU(16), images(SHAPE)), results(nn.PReLU(16), images(SHAPE)))


def test_flattening_leaves_nothing_at_what_it_is_given():
    given = images(SHAPE).requires_grad_()
    Flatten().train()(given)
    assert not given._backward_hooks
