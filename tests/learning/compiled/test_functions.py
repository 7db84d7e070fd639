"""The compiled functions, called one by one, come to what torch does in float64, for each kind of processor."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from layer_results import LIBRARIES, SEEDS, TYPES, Threads, distance, examples, images, libraries, needs_compiled

pytestmark = needs_compiled
THREADS = st.integers(1, 3)
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 17), st.integers(1, 17))
MANY = st.tuples(st.integers(20, 60), st.integers(4, 9), st.integers(4, 9))  # more tiles than one thread does at a time
LAST = torch.channels_last


def empty(shape, dtype=torch.float32):
    return torch.full(shape, torch.nan, dtype=dtype).to(memory_format=LAST)


def convolved(library, given, weight, bias):
    outputs = empty((len(given), weight.shape[3], *given.shape[2:]), given.dtype)
    library.convolution("forward", given, weight.shape[3], weight=weight, bias=bias, output=outputs)
    return outputs


def gradients(library, given, outputs):
    """Of a convolution's weights and bias, by the gradient `outputs` of what it gives."""
    channels = outputs.shape[1]
    weight = torch.full((3, 3, given.shape[1], channels), torch.nan)
    bias = torch.full((channels,), torch.nan)
    library.convolution(
        "backward", given, channels, output_gradient=outputs, weight_gradient=weight, bias_gradient=bias
    )
    return weight, bias


def filters(weight):
    """[3, 3, inputs, outputs] as torch has them, in float64."""
    return weight.permute(3, 2, 0, 1).double()


def largest_error(found, exact):
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


@examples(
    60, 1500, library=LIBRARIES, size=SIZES | MANY, inputs=st.sampled_from([8, 16, 24, 40]),
    outputs=st.sampled_from([8, 16, 32, 48, 80]), bias=st.booleans(), threads=THREADS, seed=SEEDS,
)  # fmt: skip
def test_a_convolution_is_torchs(library, size, inputs, outputs, bias, threads, seed):
    given = images((size[0], inputs, *size[1:]), seed=seed)
    weight, offsets = (
        images((3, 3, inputs, outputs), channels_last=False, seed=seed + 1),
        images((outputs,)) if bias else None,
    )
    exact = F.conv2d(given.double(), filters(weight), None if offsets is None else offsets.double(), padding=1)
    with Threads(threads):
        assert largest_error(convolved(library, given, weight, offsets), exact) < 5e-5


@examples(
    60, 1500, library=LIBRARIES, size=SIZES | MANY, inputs=st.sampled_from([1, 3, 8, 24, 40]),
    outputs=st.sampled_from([16, 32, 80]), threads=THREADS, seed=SEEDS,
)  # fmt: skip
def test_the_gradients_of_a_convolution_are_torchs(library, size, inputs, outputs, threads, seed):
    given = images((size[0], inputs, *size[1:]), seed=seed)
    incoming = images((size[0], outputs, *size[1:]), seed=seed + 1)
    with Threads(threads):
        weight, bias = gradients(library, given, incoming)
    exact = torch.nn.grad.conv2d_weight(given.double(), (outputs, inputs, 3, 3), incoming.double(), padding=1)
    assert largest_error(filters(weight), exact) < 5e-5
    assert largest_error(bias, incoming.double().sum((0, 2, 3))) < 5e-5


BFLOAT16 = st.sampled_from([each for each in libraries().values() if each.convolves_bfloat16] or [None])
needs_bfloat16 = pytest.mark.skipif(
    not any(each.convolves_bfloat16 for each in libraries().values()),
    reason="no functions were compiled for bfloat16, or this processor does not multiply it",
)


@needs_bfloat16
@examples(
    60, 1500, library=BFLOAT16, size=SIZES | MANY, inputs=st.sampled_from([24, 32, 40]),
    outputs=st.sampled_from([24, 32, 48, 80]), bias=st.booleans(), threads=THREADS, seed=SEEDS,
)  # fmt: skip
def test_a_convolution_in_bfloat16_is_exact_on_whole_numbers(library, size, inputs, outputs, bias, threads, seed):
    # Of few digits, so that bfloat16 has all of what is added up, too.
    given = (4 * images((size[0], inputs, *size[1:]), seed=seed)).round().to(torch.bfloat16)
    weight = 4 * images((3, 3, inputs, outputs), channels_last=False, seed=seed + 1).round().clamp(-3, 3)
    offsets = torch.arange(outputs).float() if bias else None
    exact = F.conv2d(given.double(), filters(weight), None if offsets is None else offsets.double(), padding=1)
    with Threads(threads):
        assert convolved(library, given, weight, offsets).equal(exact.to(torch.bfloat16))


@needs_bfloat16
@examples(
    60, 1500, library=BFLOAT16, size=SIZES | MANY, inputs=st.sampled_from([24, 32, 40]),
    outputs=st.sampled_from([32, 48, 80]), threads=THREADS, seed=SEEDS,
)  # fmt: skip
def test_the_gradients_of_a_convolution_in_bfloat16_are_torchs_but_for_rounding(
    library, size, inputs, outputs, threads, seed
):
    given = images((size[0], inputs, *size[1:]), torch.bfloat16, seed=seed)
    incoming = images((size[0], outputs, *size[1:]), torch.bfloat16, seed=seed + 1)
    with Threads(threads):
        weight, bias = gradients(library, given, incoming)
    exact = torch.nn.grad.conv2d_weight(given.double(), (outputs, inputs, 3, 3), incoming.double(), padding=1)
    assert distance(filters(weight), exact) < 0.01
    assert distance(bias, incoming.double().sum((0, 2, 3))) < 0.01


def block(library, given, side, slope, kept, weight, bias, incoming):
    """Outputs, running mean and variance, then the gradients of inputs, slope, weight and bias."""
    shape = (*given.shape[:2], given.shape[2] // side, given.shape[3] // side)
    channels = given.shape[1]
    running, outputs = [torch.zeros(channels), torch.ones(channels)], empty(shape, given.dtype)
    places = torch.empty(shape if side > 1 else 0, dtype=torch.uint8)
    means, inverses = torch.empty(channels), torch.empty(channels)
    shared = {"slope": slope, "kept": kept, "weight": weight, "means": means, "inverses": inverses, "places": places}
    library.block(
        "forward", given, side, **shared, bias=bias, momentum=0.25, epsilon=1e-5, running_mean=running[0],
        running_variance=running[1], outputs=outputs,
    )  # fmt: skip
    made = [empty(given.shape, given.dtype), torch.empty(1), torch.empty(channels), torch.empty(channels)]
    names = ("input_gradients", "slope_gradient", "weight_gradients", "bias_gradients")
    library.block("backward", given, side, **shared, gradients=incoming, **dict(zip(names, made, strict=True)))
    return [outputs, *running, *made]


def exact_block(given, side, slope, kept, weight, bias, incoming):
    """The same in float64, layer by layer."""
    leaves = [each.double().requires_grad_() for each in (given, slope, weight, bias)]
    inputs, slope, weight, bias = leaves
    running = [torch.zeros(len(weight)).double(), torch.ones(len(weight)).double()]
    outputs = torch.where(inputs > 0, inputs, inputs * slope) * kept.double()[..., None, None]
    outputs = F.batch_norm(outputs, *running, weight, bias, training=True, momentum=0.25, eps=1e-5)
    outputs = F.max_pool2d(outputs, 2) if side == 2 else outputs
    outputs.backward(incoming.double())
    return [outputs.detach(), *running, *(each.grad for each in leaves)]


@examples(
    80, 1500, library=LIBRARIES, size=SIZES | MANY, channels=st.sampled_from([16, 32, 48]),
    dtype=st.sampled_from(TYPES), side=st.sampled_from([1, 2]), slope=st.sampled_from([0.25, 0.0, -0.375, 1.0]),
    drops=st.booleans(), threads=THREADS, seed=SEEDS,
)  # fmt: skip
def test_what_follows_a_convolution_is_torchs(library, size, channels, dtype, side, slope, drops, threads, seed):
    number, height, width = size[0] + 1, side * size[1], side * size[2]  # a single pixel cannot be normalized
    given = images((number, channels, height, width), dtype, seed=seed) * 2 + 0.5
    given[:, ::3] = given[:, ::3].round()  # many equals, of which the first counts
    kept = (torch.rand(number, channels, generator=torch.Generator().manual_seed(seed)) < 0.7) / 0.7
    kept = kept if drops else torch.ones(number, channels)
    weight, bias = torch.linspace(-1, 2, channels), torch.linspace(1, -2, channels)
    incoming = images((number, channels, height // side, width // side), dtype, seed=seed + 1)
    values = (given, side, torch.tensor([slope]), kept, weight, bias, incoming)
    with Threads(threads):
        found = block(library, *values)
    exact = exact_block(*values)
    names = ("outputs", "mean", "variance", "inputs", "slope", "weight", "bias")
    for name, one, other in zip(names, found, exact, strict=True):
        # The slope's gradient is a sum, which may come to nearly zero, as may the inputs' gradients if these are few.
        size_of = max(other.abs().max().item(), given.numel() ** 0.5 if name == "slope" else 0.1)
        rounded = dtype == torch.bfloat16 and name in ("outputs", "inputs")
        assert (one.double() - other).abs().max() < (2**-7 if rounded else 1e-4) * size_of, name


@examples(
    80, 1500, library=LIBRARIES, size=SIZES | MANY, channels=st.sampled_from([16, 48]), dtype=st.sampled_from(TYPES),
    special=st.sampled_from([None, torch.nan, torch.inf, -torch.inf]), threads=THREADS, seed=SEEDS,
)  # fmt: skip
def test_pooling_is_torchs_to_the_bit(library, size, channels, dtype, special, threads, seed):
    given = (2 * images((size[0], channels, size[1] + 1, size[2] + 1), dtype, seed=seed)).round()  # many equals
    if special is not None:
        given[torch.rand(given.shape, generator=torch.Generator().manual_seed(seed)) < 0.02] = special
    exact = given.clone().requires_grad_()
    pooled = F.max_pool2d(exact, 2)
    incoming = images(pooled.shape, dtype, seed=seed + 1)
    pooled.backward(incoming)
    outputs, made = empty(pooled.shape, dtype), empty(given.shape, dtype)
    places = torch.empty(pooled.shape, dtype=torch.uint8)
    with Threads(threads):
        library.pool("forward", given.shape, dtype, inputs=given, outputs=outputs, places=places)
        library.pool("backward", given.shape, dtype, gradients=incoming, places=places, input_gradients=made)
    torch.testing.assert_close(outputs, pooled.detach(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(made, exact.grad, rtol=0, atol=0, equal_nan=True)


@examples(
    30, 500, library=LIBRARIES, size=SIZES | MANY, dtype=st.sampled_from(TYPES), side=st.sampled_from([1, 2]),
    seed=SEEDS,
)  # fmt: skip
def test_any_number_of_threads_comes_to_the_same_bits(library, size, dtype, side, seed):
    number, height, width = size[0] + 1, side * size[1], side * size[2]
    given, incoming = (images((number, 32, height, width), dtype, seed=seed + each) for each in (0, 1))
    weight = images((3, 3, 32, 32), channels_last=False)
    ones, pooled = torch.ones(32), incoming[:, :, : height // side, : width // side].contiguous(memory_format=LAST)
    made = []
    for threads in (1, 2, 3):
        with Threads(threads):
            values = (side, torch.tensor([0.25]), torch.ones(number, 32), ones, ones, pooled)
            made.append(block(library, given, *values))
            if dtype == torch.float32 or library.convolves_bfloat16:
                made[-1] += [convolved(library, given, weight, None), *gradients(library, given, incoming)]
    for one, other, third in zip(*made, strict=True):
        assert one.equal(other)
        assert one.equal(third)


@examples(
    30, 500, library=LIBRARIES, place=st.tuples(*map(st.integers, [0] * 4, [1, 31, 7, 7])),
    value=st.sampled_from([torch.nan, torch.inf, -torch.inf]), dtype=st.sampled_from(TYPES),
)  # fmt: skip
def test_what_is_no_finite_number_shows_where_it_counts_and_nowhere_else(library, place, value, dtype):
    given, incoming = images((2, 32, 8, 8), dtype), images((2, 32, 8, 8), dtype, seed=2)
    given[place] = value
    image, channel, row, column = place
    for ours, exact in zip(
        block(library, given, 1, torch.tensor([0.25]), torch.ones(2, 32), torch.ones(32), torch.ones(32), incoming),
        exact_block(given, 1, torch.tensor([0.25]), torch.ones(2, 32), torch.ones(32), torch.ones(32), incoming),
        strict=True,
    ):
        assert ours.isfinite().equal(exact.isfinite())
    if dtype == torch.float32 or library.convolves_bfloat16:
        weight, _ = gradients(library, given, incoming)
        assert not weight[:, :, channel].isfinite().any()
        outputs = convolved(library, given, images((3, 3, 32, 32), channels_last=False), None)
        assert not outputs[image, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].isfinite().any()
        assert outputs[1 - image].isfinite().all()
