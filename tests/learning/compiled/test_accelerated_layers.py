"""An accelerated layer is torch's own, whatever its options and its input are."""

import copy

import pytest
import torch
from hypothesis import strategies as st
from layer_results import LIBRARIES, SEEDS, calls, distance, examples, images, named, needs_compiled
from torch import nn

from cifar_mlflow.learning.compiled import accelerate, bindings

pytestmark = needs_compiled
SIZES = st.tuples(st.integers(2, 9), st.integers(1, 6), st.integers(1, 6)).map(lambda n: (n[0], 2 * n[1], 2 * n[2]))


def convolution(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **options})


def block(channels, activation, dropout, pools, *, pooling=None, normalization=None):
    """What follows a convolution."""
    activations = {"prelu": nn.PReLU, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "none": nn.Identity}
    return nn.Sequential(
        activations[activation](),
        nn.Dropout2d(dropout),
        nn.BatchNorm2d(channels, **(normalization or {})),
        *([nn.MaxPool2d(**(pooling or {"kernel_size": 2}))] if pools else []),
    )


# Each with the compiled functions that do a step of it.
CONVOLUTIONS = st.builds(
    lambda *channels, bias: (
        convolution(*channels, bias=bias), ["convolution_forward", "convolution_forward", "convolution_backward"]
    ),
    st.sampled_from([24, 32, 48]), st.sampled_from([32, 48, 80]), bias=st.booleans(),
)  # fmt: skip
POOLINGS = st.builds(lambda: (nn.MaxPool2d(2), ["pool_forward", "pool_backward"]))
BLOCKS = st.builds(
    lambda *options, **named: (block(*options, **named), ["block_forward", "block_backward"]),
    st.sampled_from([16, 48]), st.sampled_from(["prelu", "relu", "leaky_relu", "none"]), st.sampled_from([0, 0.35]),
    st.booleans(), normalization=st.fixed_dictionaries({"momentum": st.sampled_from([0.1, 0.9]), "eps": st.just(1e-3)}),
)  # fmt: skip
PRELUS = st.builds(lambda slope: (nn.PReLU(init=slope), []), st.sampled_from([0.25, 0.0, -0.375, 1.5]))
TAKEN = CONVOLUTIONS | POOLINGS | BLOCKS | PRELUS


def channels_of(layer):
    for module in layer.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            return module.in_channels if isinstance(module, nn.Conv2d) else module.num_features
    return 32


def prepared(layer, seed):
    """The layer in training, with weights that differ from one another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 1 and len(parameter) > 1:
                parameter.copy_(torch.randn(len(parameter), generator=generator))
    return layer.to(memory_format=torch.channels_last).train()


def step(layer, given, in_order=True, autocast=False):
    """Outputs, gradients and buffers; or the kind of the error."""
    given = given.detach().requires_grad_(given.is_floating_point())
    torch.manual_seed(3)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = layer(given.view_as(given))  # what an activation in place writes to is no leaf
        outputs.backward(images(outputs.shape, torch.float64, in_order, seed=5).to(outputs.dtype))
    except (RuntimeError, ValueError) as error:
        return [type(error)]
    gradients = [given.grad, *(parameter.grad for parameter in layer.parameters())]
    return [outputs.detach(), *gradients, *(buffer.clone() for buffer in layer.buffers())]


@examples(
    150, 4000, library=LIBRARIES, kind=TAKEN, size=SIZES, dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    frozen=st.booleans(), in_order=st.booleans(), seed=SEEDS,
)  # fmt: skip
def test_what_the_functions_take_is_torchs_but_for_rounding(library, kind, size, dtype, frozen, in_order, seed):
    torchs, expected = kind
    autocast = dtype == torch.bfloat16
    given = images((size[0], channels_of(torchs), *size[1:]), dtype, seed=seed)
    prepared(torchs, seed).requires_grad_(not frozen)
    ours, exact = copy.deepcopy(torchs), copy.deepcopy(torchs).double()
    accelerate(ours)
    with pytest.MonkeyPatch.context() as patch, calls() as call:
        patch.setattr(bindings, "available", lambda: library)
        found = step(ours, given, in_order, autocast)
    if isinstance(torchs, nn.Conv2d):
        side = 2 if autocast else 4
        # Of images that fill less than half of the tiles that cover them, nothing is gained.
        fills = 2 * size[1] * size[2] >= side**2 * -(-size[1] // side) * -(-size[2] // side)
        gains = fills and (not autocast or library.convolves_bfloat16)
        expected = expected[: 2 if frozen else 3] if gains else []
    assert named(call) == expected
    plain, truth = step(torchs, given, in_order, autocast), step(exact, given.double(), in_order)
    assert len(found) == len(plain) == len(truth)
    for one, other, best in zip(found, plain, truth, strict=True):
        if frozen and other is None:
            assert one is None
        elif best.is_floating_point():
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            # Filtering by tiles loses more than torch does, above all in bfloat16.
            assert distance(one, best) <= 1.1 * distance(other, best) + (8e-3 if autocast else 2e-5)
        else:
            assert one.equal(other)


def gaps(given):
    return torch.cat([given, given], 2).contiguous(memory_format=torch.channels_last)[:, :, : given.shape[2]]


def turned(given):
    return given.transpose(2, 3).contiguous(memory_format=torch.channels_last).transpose(2, 3)


# What is changed of the layer's input.
INPUTS = {
    "contiguous": torch.Tensor.contiguous, "with gaps": gaps, "turned": turned, "float64": torch.Tensor.double,
    "expanded": lambda given: given[:1].expand(given.shape), "one image": lambda given: given[0],
    "no image": lambda given: given[:0], "no pixel": lambda given: given[..., :0],
}  # fmt: skip
# Layers, made anew for each test, that are not among those that the functions take.
OTHERS = {
    **{
        f"convolution {options}": lambda options=options: convolution(32, 32, **options)
        for options in (
            {"padding": 0}, {"padding": "same"}, {"stride": 2}, {"dilation": 2}, {"groups": 4},
            {"padding_mode": "reflect"}, {"padding": 2},
        )
    },
    **{
        f"convolution {channels}": lambda channels=channels: convolution(*channels)
        for channels in ((3, 16), (12, 16), (16, 24), (16, 10))
    },
    "convolution 5 x 5": lambda: nn.Conv2d(32, 32, 5, padding=1),
    **{
        f"pooling {options}": lambda options=options: nn.MaxPool2d(**options)
        for options in (
            {"kernel_size": 3}, {"kernel_size": 2, "stride": 1}, {"kernel_size": 2, "padding": 1},
            {"kernel_size": 2, "ceil_mode": True, "dilation": 2},
        )
    },
    **{
        f"block {options}": lambda options=options: block(16, "relu", 0.35, True, **options)
        for options in (
            {"normalization": {"affine": False}}, {"normalization": {"momentum": None}},
            {"normalization": {"track_running_stats": False}}, {"normalization": {"bias": False}},
        )
    },
    "block of 10": lambda: block(10, "relu", 0, False),
    "slopes": lambda: nn.Sequential(nn.PReLU(16), nn.BatchNorm2d(16)),
    "no dropout": lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(16), nn.MaxPool2d(3)),
    "no normalization": lambda: nn.Sequential(nn.ReLU(), nn.Dropout2d(0)),
    "dropout of pixels": lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0), nn.BatchNorm2d(16)),
}  # fmt: skip
LAYERS = {
    "convolution": lambda: convolution(32, 32), "pooling": lambda: nn.MaxPool2d(2),
    "block": lambda: nn.Sequential(nn.Dropout2d(0.35), nn.BatchNorm2d(16), nn.MaxPool2d(2)), "flatten": nn.Flatten,
}  # fmt: skip


def assert_equal(make, given, training, seed):
    torchs = prepared(make(), seed).train(training)
    if given.dtype == torch.float64:
        torchs.double()
    ours = copy.deepcopy(torchs)
    accelerate(ours)
    with calls() as call:
        found = step(ours, given)
    for one, other in zip(found, step(torchs, given), strict=True):
        assert one is other or one.equal(other)
    # Pooling is the same to the bit, so that what follows other layers may be done by the functions.
    assert [name for name in named(call) if not name.startswith("pool")] == []


@examples(150, 3000, name=st.sampled_from([*OTHERS]), size=SIZES, training=st.booleans(), seed=SEEDS)
def test_other_layers_are_torchs_to_the_bit(name, size, training, seed):
    layer = OTHERS[name]()
    given = images((size[0], channels_of(layer), size[1] + 2, size[2] + 2), seed=seed)
    assert_equal(OTHERS[name], given, training, seed)


@examples(
    100, 2000, name=st.sampled_from([*LAYERS]), change=st.sampled_from([*INPUTS]), size=SIZES, training=st.booleans(),
    seed=SEEDS,
)  # fmt: skip
def test_other_inputs_are_torchs_to_the_bit(name, change, size, training, seed):
    layer = LAYERS[name]()
    given = INPUTS[change](images((size[0], channels_of(layer), size[1] + 2, size[2] + 4), seed=seed))
    assert_equal(LAYERS[name], given, training, seed)


@examples(60, 1000, name=st.sampled_from([*LAYERS]), size=SIZES, seed=SEEDS)
def test_in_evaluation_it_is_torchs_to_the_bit(name, size, seed):
    layer = LAYERS[name]()
    given = images((size[0], channels_of(layer), *size[1:]), seed=seed)
    assert_equal(LAYERS[name], given, False, seed)
