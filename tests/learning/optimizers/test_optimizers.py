"""Each optimizer is torch's with the configuration's values; each schedule follows its formula."""

import itertools
import math
import subprocess
import sys

import pytest
import torch

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.optimizers.build import build_optimizer
from cifar_mlflow.learning.optimizers.schedule import Schedule

EPOCHS, STEPS, RATE = 12, 5, 0.1


def network(*tensors):
    """A module with these tensors as its parameters."""
    return torch.nn.ParameterList(tensors)


def optimizer(**values):
    return build_optimizer(resolve(values), network(torch.ones(3)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("adagrad", torch.optim.Adagrad),
        ("rmsprop", torch.optim.RMSprop),
        ("adamax", torch.optim.Adamax),
        ("asgd", torch.optim.ASGD),
    ],
)
def test_each_optimizer_is_torchs_and_has_the_configured_values(name, kind):
    made = optimizer(optimizer=name, learning_rate=0.03, weight_decay=0.07, momentum=0.5)
    (group,) = made.param_groups
    assert isinstance(made, kind)
    assert (group["lr"], group["weight_decay"]) == (0.03, 0.07)
    if name in ("sgd", "rmsprop"):
        assert group["momentum"] == 0.5
    else:
        assert not group.get("momentum")


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad", "rmsprop", "adamax", "asgd"])
def test_each_optimizer_steps_as_torchs_default_does(name):
    kinds = {kind.__name__.lower(): kind for kind in vars(torch.optim).values() if isinstance(kind, type)}
    weights = network(*(torch.tensor([1.0, -2.0, 3.0]) for _ in range(2)))
    ours = build_optimizer(resolve({"optimizer": name, "learning_rate": 0.03}), network(weights[0]))
    decay = {"weight_decay": 0.0} if name == "adamw" else {}
    theirs = kinds[name]([weights[1]], lr=0.03, **decay)
    for _ in range(5):
        for made, weight in zip((ours, theirs), weights, strict=True):
            made.zero_grad()
            (weight**2).sum().backward()
            made.step()
    torch.testing.assert_close(weights[0], weights[1])


def test_biases_have_a_rate_of_their_own_in_every_schedule():
    config = resolve({"scheduler": "one_cycle", "learning_rate": 0.1, "bias_rate": 8, "weight_decay": 0.4})
    made = build_optimizer(config, network(torch.ones(2, 3), torch.ones(3)))
    weights, biases = made.param_groups
    assert [len(group["params"]) for group in (weights, biases)] == [1, 1]
    assert weights["params"][0].dim() == 2
    assert (weights["weight_decay"], biases["weight_decay"]) == (0.4, 0.05)
    schedule = Schedule(config, made, STEPS)
    for _ in range(7):
        assert biases["lr"] == pytest.approx(8 * weights["lr"])
        made.step()
        schedule.after_step()


def test_the_slope_of_prelu_is_no_bias():
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.PReLU())
    weights, biases = build_optimizer(resolve({"bias_rate": 8}), layers).param_groups
    assert weights["params"] == [layers[0].weight, layers[1].weight]
    assert biases["params"] == [layers[0].bias]


class TestMuon:
    def muon(self, *tensors, **values):
        made = network(*tensors)
        config = resolve({"optimizer": "muon", "learning_rate": 0.1, **values})
        return made, build_optimizer(config, made)

    @pytest.mark.parametrize("shape", [(8, 3, 3, 3), (30, 2, 3, 3)], ids=["wide", "tall"])
    def test_a_step_of_a_convolution_is_nearly_orthogonal(self, shape):
        torch.manual_seed(0)
        (weight,), made = self.muon(torch.randn(shape))
        weight.grad = torch.randn(shape)
        before = weight.detach() * (len(weight) ** 0.5 / weight.detach().norm())
        made.step()
        update = ((before - weight.detach()) / 0.1).flatten(1)
        u, _, v = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
        along = (u.T @ update @ v.T).diagonal()
        assert along.min() > 0.3
        assert along.max() < 1.6
        torch.testing.assert_close(u @ torch.diag(along) @ v, update, atol=0.1, rtol=0)

    def test_the_scale_of_a_gradient_does_not_matter_to_a_convolution(self):
        gradient = torch.randn(4, 3, 3, 3)
        results = []
        for scale in (1, 1000):
            (weight,), made = self.muon(torch.ones(4, 3, 3, 3), momentum=0.5)
            weight.grad = gradient * scale
            made.step()
            results.append(weight.detach())
        torch.testing.assert_close(*results, atol=1e-2, rtol=0)

    def test_all_else_steps_as_torchs_sgd_with_nesterov_momentum_does(self):
        start = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        (ours,), made = self.muon(start.clone(), momentum=0.2)
        (theirs,) = network(start.clone())
        reference = torch.optim.SGD([theirs], lr=0.1, momentum=0.85, nesterov=True)
        for _ in range(4):
            for weight, optimizer in ((ours, made), (theirs, reference)):
                optimizer.zero_grad()
                (weight**2).sum().backward()
                optimizer.step()
        torch.testing.assert_close(ours, theirs)

    def test_decay_takes_a_share_off_what_is_no_convolution(self):
        (weight, bias), made = self.muon(torch.ones(2, 2), torch.ones(2), weight_decay=0.5, bias_rate=10)
        weight.grad, bias.grad = torch.zeros(2, 2), torch.zeros(2)
        made.step()
        assert weight.flatten().tolist() == pytest.approx([0.95] * 4)
        assert bias.tolist() == pytest.approx([0.95, 0.95])


TRAIN_ONE_EPOCH = """
import sys
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training
for optimizer in sys.argv[2:]:
    config = resolve({"dataset": sys.argv[1], "optimizer": optimizer, "epochs": 2, "threads": 1, "batch_size": 8})
    training = Training(config, datasets.load(config))
    results = list(training.epochs())
    training.state()
print(*sorted(name for name in sys.modules if name in ("torch._dynamo", "torch._inductor", "sklearn")))
"""


def test_a_training_imports_no_compiler(tiny):
    command = [sys.executable, "-c", TRAIN_ONE_EPOCH, str(tiny), "adam", "adagrad", "muon"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_nothing_is_recorded_for_gradients_in_a_step():
    (weight,) = parameters = network(torch.ones(3))
    made = build_optimizer(resolve({"optimizer": "sgd"}), parameters)
    (weight**2).sum().backward()
    made.step()
    assert weight.is_leaf
    assert weight.requires_grad


def rates(**values):
    """The rate of the first step of each epoch, and that after the last."""
    config = resolve({"epochs": EPOCHS, "learning_rate": RATE, "optimizer": "sgd", **values})
    made = build_optimizer(config, network(torch.ones(1)))
    schedule = Schedule(config, made, STEPS)
    found = []
    for _ in range(EPOCHS):
        found.append(schedule.rate)
        for _ in range(STEPS):
            made.step()
            schedule.after_step()
        schedule.after_epoch()
    return found


EPOCH = range(EPOCHS)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"scheduler": "none"}, [RATE for _ in EPOCH]),
        ({"scheduler": "step", "step_size": 5, "gamma": 0.2}, [RATE * 0.2 ** (e // 5) for e in EPOCH]),
        (
            {"scheduler": "multistep", "milestones": (3, 7), "gamma": 0.5},
            [RATE * 0.5 ** ((e >= 3) + (e >= 7)) for e in EPOCH],
        ),
        ({"scheduler": "exponential", "gamma": 0.9}, [RATE * 0.9**e for e in EPOCH]),
        ({"scheduler": "cosine"}, [RATE * (1 + math.cos(math.pi * e / EPOCHS)) / 2 for e in EPOCH]),
    ],
    ids=lambda value: value["scheduler"] if isinstance(value, dict) else "",
)
def test_the_rate_of_each_epoch_follows_the_formula(values, expected):
    assert rates(**values) == pytest.approx(expected)


def one_cycle(step, total=EPOCHS * STEPS, warmup=0.3, start=RATE / 25, end=RATE / 25 / 1e4):
    """Smith & Topin (2018) as torch has it: cosines up to the peak at 30% of the steps, and down."""
    peak = warmup * total - 1
    if step <= peak:
        return start + (RATE - start) * (1 - math.cos(math.pi * step / peak)) / 2
    share = (step - peak) / (total - 1 - peak)
    return end + (RATE - end) * (1 + math.cos(math.pi * share)) / 2


def test_one_cycle_changes_with_every_step():
    assert rates(scheduler="one_cycle") == pytest.approx([one_cycle(epoch * STEPS) for epoch in EPOCH])


@pytest.mark.parametrize(("warmup", "first", "peak"), [(0, RATE, 0), (0.2, RATE / 13, 12), (0.5, RATE / 31, 30)])
def test_triangular_rises_and_falls_in_straight_lines(warmup, first, peak):
    config = resolve({"epochs": EPOCHS, "learning_rate": RATE, "scheduler": "triangular", "warmup": warmup})
    made = build_optimizer(config, network(torch.ones(1)))
    schedule = Schedule(config, made, STEPS)
    found = []
    for _ in range(EPOCHS * STEPS):
        found.append(schedule.rate)
        made.step()
        schedule.after_step()
    assert found[0] == pytest.approx(first)
    assert found.index(max(found)) == peak
    assert max(found) == pytest.approx(RATE)
    steps = {round(b - a, 9) for a, b in itertools.pairwise(found)}
    assert len(steps) == (1 if warmup == 0 else 2)
    assert schedule.rate == 0


def test_triangular_rises_until_the_last_step_at_most():
    config = resolve({"epochs": 1, "learning_rate": RATE, "scheduler": "triangular", "warmup": 0.99})
    made = build_optimizer(config, network(torch.ones(1)))
    schedule = Schedule(config, made, STEPS)
    found = []
    for _ in range(STEPS):
        found.append(schedule.rate)
        made.step()
        schedule.after_step()
    assert found == pytest.approx([RATE * (step + 1) / STEPS for step in range(STEPS)])
    assert schedule.rate == 0


def test_one_cycle_leaves_the_momentum_alone():
    config = resolve({"scheduler": "one_cycle", "optimizer": "sgd", "momentum": 0.7})
    made = build_optimizer(config, network(torch.ones(1)))
    Schedule(config, made, STEPS)
    assert made.param_groups[0]["momentum"] == 0.7
