"""Each optimizer is torch's with the configuration's values; each schedule follows its formula."""

import math
import subprocess
import sys

import pytest
import torch

from cifar_mlflow.config import resolve
from cifar_mlflow.learning.optimization import Schedule, build_optimizer

EPOCHS, STEPS, RATE = 12, 5, 0.1


def optimizer(**values):
    return build_optimizer(resolve(values), [torch.nn.Parameter(torch.ones(3))])


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
    weights = [torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2)]
    ours = build_optimizer(resolve({"optimizer": name, "learning_rate": 0.03}), [weights[0]])
    decay = {"weight_decay": 0.0} if name == "adamw" else {}
    theirs = kinds[name]([weights[1]], lr=0.03, **decay)
    for _ in range(5):
        for made, weight in zip((ours, theirs), weights, strict=True):
            made.zero_grad()
            (weight**2).sum().backward()
            made.step()
    torch.testing.assert_close(weights[0], weights[1])


TRAIN_ONE_EPOCH = """
import sys
from cifar_mlflow.config import resolve
from cifar_mlflow.learning import data
from cifar_mlflow.learning.training import Training
config = resolve({"dataset": sys.argv[1], "optimizer": sys.argv[2], "epochs": 2, "threads": 1, "batch_size": 8})
training = Training(config, data.load(config))
results = list(training.epochs())
training.state()
print(*sorted(name for name in sys.modules if name in ("torch._dynamo", "torch._inductor", "sklearn")))
"""


@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_a_training_imports_no_compiler(tiny, name):
    command = [sys.executable, "-c", TRAIN_ONE_EPOCH, str(tiny), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_nothing_is_recorded_for_gradients_in_a_step():
    weight = torch.nn.Parameter(torch.ones(3))
    made = build_optimizer(resolve({"optimizer": "sgd"}), [weight])
    (weight**2).sum().backward()
    made.step()
    assert weight.is_leaf
    assert weight.requires_grad


def rates(**values):
    """The rate of the first step of each epoch, and that after the last."""
    config = resolve({"epochs": EPOCHS, "learning_rate": RATE, "optimizer": "sgd", **values})
    made = build_optimizer(config, [torch.nn.Parameter(torch.ones(1))])
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


def test_one_cycle_leaves_the_momentum_alone():
    config = resolve({"scheduler": "one_cycle", "optimizer": "sgd", "momentum": 0.7})
    made = build_optimizer(config, [torch.nn.Parameter(torch.ones(1))])
    Schedule(config, made, STEPS)
    assert made.param_groups[0]["momentum"] == 0.7
