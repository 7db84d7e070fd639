"""A network of the user's own that raises what nobody expects: exit code 2 with the place, and no run left RUNNING."""

import sys

import pytest

NETWORK = """
from torch import nn


class Stop(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise ValueError


class Net(nn.Module):
    def __init__(self, classes, config):
        super().__init__()
        self.layer = nn.Linear(192, classes)
        self.steps = 0

    def forward(self, images):
        return self.layer(images.flatten(1))
"""
# Where it raises, in the body of a subclass that is the network.
BEFORE_THE_RUN = {
    "at its import": "raise Stop('here')",
    "by its function": "def build(classes, config): raise Stop('here')",
    "in forward": "class build(Net):\n    def forward(self, images): raise Stop('here')",
    "by sys.exit": "class build(Net):\n    def forward(self, images): raise SystemExit('here')",
    "as a generator ends": "class build(Net):\n    def forward(self, images): raise GeneratorExit('here')",
    "without a word": "class build(Net):\n    def forward(self, images): raise Mute",
    "in train": "class build(Net):\n    def train(self, mode=True): raise Stop('here')",
    "in to": "class build(Net):\n    def to(self, *arguments, **options): raise Stop('here')",
    "in state_dict": "class build(Net):\n    def state_dict(self, *arguments, **options): raise Stop('here')",
}
IN_THE_RUN = {
    "in a step": """
class build(Net):
    def forward(self, images):
        self.steps += self.training
        if self.steps > 9:
            raise Stop('here')
        return super().forward(images)
""",
    "in evaluation": """
class build(Net):
    calls = 0
    def forward(self, images):
        build.calls += not self.training
        if build.calls > 25:
            raise Stop('here')
        return super().forward(images)
""",
    "in train, later": """
class build(Net):
    calls = 0
    def train(self, mode=True):
        build.calls += 1
        if build.calls > 12:
            raise Stop('here')
        return super().train(mode)
""",
}


@pytest.fixture
def trained_with(cifar, work, tiny, runs, monkeypatch):
    """Trains with a network of that source; returns the outcome and the statuses of the runs."""
    monkeypatch.delitem(sys.modules, "raising", raising=False)

    def train(source):
        (work / "raising.py").write_text(NETWORK + source + "\n")
        words = ("--epochs", 30, "--scheduler", "none", "--batch-size", 8, "--precision", "float32")
        outcome = cifar("train", "--dataset", tiny, "--network", "raising:build", *words)
        sys.modules.pop("raising", None)
        return outcome, [run.info.status for run in runs()]

    return train


def check(outcome, work):
    assert outcome.code == 2, outcome.output
    assert "should not have happened" not in outcome.output
    assert "Traceback" not in outcome.output
    assert "--network: raising:build: " in outcome.stderr
    assert f"({work}/raising.py, line " in outcome.stderr


@pytest.mark.parametrize("where", BEFORE_THE_RUN)
def test_before_the_run_there_is_none(trained_with, work, where):
    outcome, statuses = trained_with(BEFORE_THE_RUN[where])
    check(outcome, work)
    assert statuses == []


@pytest.mark.parametrize("where", IN_THE_RUN)
def test_in_the_run_it_is_failed(trained_with, work, where):
    outcome, statuses = trained_with(IN_THE_RUN[where])
    check(outcome, work)
    assert statuses == ["FAILED"]
