"""accelerate() changes how layers compute while they train, and nothing else that can be seen of a network."""

import copy

import pytest
import torch
from hypothesis import strategies as st
from layer_results import SEEDS, calls, distance, examples, images, named, needs_compiled
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.parametrizations import weight_norm

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning import compiled, export
from cifar_mlflow.learning.compiled import accelerate, bindings, restore
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.networks import build
from cifar_mlflow.learning.networks.preprocessing import Preprocessing
from cifar_mlflow.learning.training import Training

REPORT, FAST = {"dropout": 0.35}, {"network": "fast", "widths": "32,32,48"}
BOTH = pytest.mark.parametrize("values", [REPORT, FAST], ids=["report_cnn", "fast"])
FORWARD, BACKWARD = "convolution_forward", ["convolution_forward", "convolution_backward"]


def network(values, shape=(32, 32, 3)):
    torch.manual_seed(0)
    return build.build(resolve(values), 10, shape).to(memory_format=torch.channels_last).train()


def accelerated(values):
    made = network(values)
    accelerate(made)
    return made


def types(module):
    return [type(layer) for layer in module.modules()]


def step(module, given, autocast=False):
    """Outputs, then gradients, then buffers."""
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = module(given)
    nn.functional.cross_entropy(outputs, torch.arange(len(outputs)) % 10).backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return [outputs.detach(), *gradients, *(buffer.clone() for buffer in module.buffers())]


# ------------------------------------------------------------------------------------------------- whole networks


@needs_compiled
@examples(
    25, 400,
    values=st.fixed_dictionaries({
        "activation": st.sampled_from([*build.ACTIVATIONS]), "dropout": st.sampled_from([0.0, 0.35]),
    }) | st.fixed_dictionaries({
        "network": st.just("fast"), "activation": st.sampled_from(["gelu", "prelu"]),
        "widths": st.tuples(*[st.sampled_from([16, 32, 40])] * 3),
    }),
    size=st.tuples(st.integers(9, 33), st.integers(9, 33), st.sampled_from([1, 3])), number=st.integers(12, 24),
    autocast=st.booleans(), seed=SEEDS,
)  # fmt: skip
def test_a_step_of_a_network_is_torchs(values, size, number, autocast, seed):
    plain = network(values, size)
    ours, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    accelerate(ours)
    given = images((number, size[2], *size[:2]), seed=seed)
    found, torchs, truth = step(ours, given, autocast), step(plain, given, autocast), step(exact, given.double())
    assert [(each.dtype, each.shape) for each in found] == [(each.dtype, each.shape) for each in torchs]
    for part in (slice(0, 1), slice(1, None)):  # outputs; gradients and buffers
        one, other, best = (
            torch.cat([each.double().flatten() for each in made[part]]) for made in (found, torchs, truth)
        )
        assert distance(one, best) <= 2 * distance(other, best) + (0.4 if autocast else 2e-3)


@needs_compiled
def test_the_report_cnn_trains_by_compiled_functions():
    made = accelerated(REPORT)
    with calls() as call:
        step(made, images((4, 3, 32, 32)))
    assert named(call) == [
        *("block_forward", FORWARD) * 2, "block_forward",
        *("block_backward", *BACKWARD) * 2, "block_backward", "convolution_backward",
    ]  # fmt: skip
    with calls() as call:
        made.eval()(images((4, 3, 32, 32)))
    assert not call.called


@needs_compiled
@pytest.mark.parametrize("autocast", [False, True])
def test_the_fast_network_trains_by_compiled_functions(autocast):
    if autocast and not bindings.available().convolves_bfloat16:
        pytest.skip("no functions were compiled for bfloat16, or this processor does not multiply it")
    with calls() as call:
        step(accelerated(FAST), images((4, 3, 32, 32)), autocast)
    assert named(call) == [*[FORWARD, "pool_forward", FORWARD] * 3, *[*BACKWARD, "pool_backward", *BACKWARD] * 3]


# ------------------------------------------------------------------------------- what stays as it is in plain torch


@BOTH
def test_a_network_is_plain_torch_before_and_after(values):
    made = network(values)
    plain = types(made)
    assert all(kind.__module__.startswith("torch.nn.") for kind in plain[values is FAST :])
    accelerate(made)
    changed = sum(kind in compiled.ACCELERATED for kind in plain)
    assert sum(kind in compiled.PLAIN for kind in types(made)) == changed >= 9
    assert not any(kind in compiled.ACCELERATED for kind in types(made))
    restore(made)
    assert types(made) == plain


@BOTH
def test_objects_keys_and_mode_stay_the_same(values):
    made = network(values).eval()
    handle = next(made.children()).register_forward_hook(lambda *_: None)

    def seen():
        tensors = [*made.named_parameters(), *made.named_buffers()]
        layers = [(name, id(layer), layer.training, repr(layer)) for name, layer in made.named_modules()]
        return [(name, id(tensor)) for name, tensor in tensors], layers, [*made.state_dict()]

    before, hooks = seen(), dict(next(made.children())._forward_hooks)
    accelerate(made)
    assert seen() == before
    assert next(made.children())._forward_hooks == hooks
    assert handle.id in hooks


@BOTH
def test_weights_go_from_one_to_the_other(values):
    plain, ours = network(values), accelerated(values)
    step(ours, images((4, 3, 32, 32)))
    plain.load_state_dict(ours.state_dict())
    given = images((2, 3, 32, 32))
    assert plain.eval()(given).equal(ours.eval()(given))
    ours.load_state_dict(plain.state_dict())


REGISTER = {
    "forward": lambda layer, told: layer.register_forward_hook(lambda *_: told()),
    "forward, before": lambda layer, told: layer.register_forward_pre_hook(lambda *_: told()),
    "backward": lambda layer, told: layer.register_full_backward_hook(lambda *_: told()),
    "backward, before": lambda layer, told: layer.register_full_backward_pre_hook(lambda *_: told()),
}


@BOTH
@pytest.mark.parametrize("kind", REGISTER)
def test_hooks_of_every_layer_are_called_as_in_plain_torch(values, kind):
    told = []
    for made in (network(values), accelerated(values)):
        told.append(order := [])
        for name, layer in made.named_modules():
            REGISTER[kind](layer, lambda order=order, name=name: order.append(name))
        step(made, images((4, 3, 32, 32)))
    assert told[0] == told[1]
    assert len(told[0]) >= 15


@BOTH
def test_a_hook_sees_and_changes_what_it_does_in_plain_torch(values):
    found = []
    for made in (network({**values, "dropout": 0}), accelerated({**values, "dropout": 0})):
        for layer in made.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_hook(lambda layer, given, outputs: outputs * 2 + given[0].mean())
        found.append(step(made, images((4, 3, 32, 32))))
    for torchs, ours in zip(*found, strict=True):
        assert distance(ours, torchs) < 2e-2


def test_hooks_of_all_modules_are_called():
    told = []
    handle = register_module_forward_hook(lambda layer, *_: told.append(type(layer).__name__))
    try:
        for made in (network(REPORT), accelerated(REPORT)):
            made(images((4, 3, 32, 32)))
    finally:
        handle.remove()
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    assert "BatchNorm2d" in told


class Tripled(nn.Conv2d):
    def forward(self, given):
        return super().forward(given) * 3


def test_what_is_derived_from_a_layer_is_left_alone():
    made = nn.Sequential(Tripled(16, 16, 3, padding=1), weight_norm(nn.Conv2d(16, 16, 3, padding=1)))
    before = types(made)
    with calls() as call:
        accelerate(made)
        made.train()(images((2, 16, 8, 8))).sum().backward()
    assert types(made)[1:] == before[1:]
    assert not call.called


def test_a_forward_function_of_its_own_is_called():
    made = accelerated(REPORT)
    normalization = next(layer for layer in made if isinstance(layer, nn.BatchNorm2d))
    normalization.forward = lambda given: given * 0
    outputs = made[:4](images((2, 3, 32, 32)))
    assert outputs.eq(0).all()


def test_a_layer_that_stands_twice_in_a_network_stays_one():
    layer = nn.Conv2d(16, 16, 3, padding=1)
    made = nn.Sequential(layer, nn.Sequential(layer))
    accelerate(made)
    assert made[0] is made[1][0] is layer
    assert len(list(made.parameters())) == 2


@pytest.mark.parametrize("place", ["meta", "half"])
def test_elsewhere_it_does_nothing(place):
    made = nn.Sequential(nn.Conv2d(3, 16, 3), nn.PReLU())
    made = made.to("meta") if place == "meta" else nn.Sequential(made, nn.PReLU().to("meta"))
    before = types(made)
    accelerate(made)
    assert types(made) == before


@BOTH
def test_an_exported_model_is_that_of_plain_torch(values):
    programs = []
    for made in (network(values), accelerated(values)):
        model = export.classifier(Preprocessing((0.5,), (0.25,)), made, network(values).state_dict())
        assert not any(kind in compiled.PLAIN for kind in types(model))
        given = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
        programs.append(torch.export.export(model, (given,), dynamic_shapes=({0: torch.export.Dim("batch")},)))
    torchs, ours = programs
    assert ours.graph_module.code == torchs.graph_module.code
    stacks = [str([node.meta.get("nn_module_stack") for node in program.graph.nodes]) for program in programs]
    assert stacks[0] == stacks[1]
    assert "cifar_mlflow.learning.compiled" not in stacks[0]
    assert any(kind in compiled.PLAIN for kind in types(made))  # what trains goes on as before


# ---------------------------------------------------------------------------------------------------- in a training


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({}, True),
        ({"network": "torchvision:squeezenet1_1"}, True),
        ({"accelerate": "none"}, False),
        ({"network": "own_layers:own"}, False),
    ],
)
def test_a_training_accelerates_what_is_asked_for(work, tiny, monkeypatch, values, changes):
    (work / "own_layers.py").write_text(
        "from torch import nn\ndef own(classes, config):\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(), nn.Flatten(), nn.Linear(1024, classes))\n"
    )
    monkeypatch.syspath_prepend(work)
    config = resolve({"dataset": str(tiny), "epochs": 1, "precision": "float32", "device": "cpu", **values})
    training = Training(config, datasets.load(config))
    assert any(kind in compiled.PLAIN for kind in types(training.network)) == changes
    with calls() as call:
        list(training.epochs())
    assert call.called == (changes and bindings.available() is not None)
    used = compiled.describe(config, torch.device("cpu"))
    assert used == (bindings.describe(torch.device("cpu")) if changes else "torch")
    assert compiled.describe(config, torch.device("cuda")) == "torch"


@needs_compiled
@pytest.mark.parametrize(("channels", "least"), [(32, 128), (272, 256)])
def test_a_convolution_of_few_tiles_is_torchs_but_in_built_in_networks(channels, least):
    built_in, layer = (
        nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last) for _ in range(2)
    )
    compiled.accelerate_for(resolve({}), built_in)
    compiled.accelerate_for(resolve({"network": "torchvision:resnet18"}), layer)
    with calls() as call:
        built_in(images((1, channels, 4, 4)))
    assert named(call) == [FORWARD]
    for number, names in ((least - 1, []), (least, [FORWARD])):  # a tile an image
        with calls() as call:
            layer(images((number, channels, 4, 4)))
        assert named(call) == names


def test_without_compiled_functions_a_network_still_trains(monkeypatch):
    monkeypatch.setattr(bindings, "available", lambda: None)
    plain = step(network(REPORT), images((4, 3, 32, 32)))
    with calls() as call:
        for ours, torchs in zip(step(accelerated(REPORT), images((4, 3, 32, 32))), plain, strict=True):
            assert distance(ours, torchs) < 1e-4
    assert not call.called
