"""A network of the user's own is trained, logged and used like ours; what is wrong with it is told beforehand."""

import shutil
from pathlib import Path

import pytest

NETWORK = "from torch import nn\ndef build(classes, config):\n    return {}"
EXAMPLE = Path(__file__).parents[2] / "experiments" / "own_network.py"


@pytest.fixture
def write(work):
    """Writes a module to the current directory; returns the name of its function `build`."""

    def module(name, text):
        (work / f"{name}.py").write_text(text)
        return f"{name}:build"

    return module


def test_the_example_is_trained_and_its_model_needs_no_code(cifar, work, runs, tiny, tiny_training, client, smoke_here):
    shutil.copy(EXAMPLE, work / "example_network.py")
    outcome = cifar("train", *tiny_training, "--network", "example_network:build", "--dropout", "0.1")
    assert outcome.code == 0, outcome.output
    (run,) = runs()
    assert run.data.params["network"] == "example_network:build"
    assert run.info.run_name == "tiny-build-adam-seed0"
    (work / "example_network.py").unlink()
    outcome = cifar("promote", run.info.run_id)
    assert outcome.code == 0, outcome.output
    assert cifar("predict", "tiny@champion", tiny).code == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("absent", None, "it cannot be imported from"),
        ("nothing", "", "has no attribute 'build'"),
        ("misspelled", "def biuld(classes, config): pass", "(did you mean biuld?)"),
        ("broken", "def build(:", "SyntaxError"),
        ("raises", "def build(classes, config):\n    return config.colour", "raises.py, line 2"),
        ("text", "def build(classes, config):\n    return 'net'", "it returns str instead of a torch.nn.Module"),
        ("two", NETWORK.format("nn.Sequential(nn.Flatten(), nn.Linear(192, 2))"), "gives (2, 2) instead of logits of"),
        ("wrong", NETWORK.format("nn.Linear(7, classes)"), "it fails on images of (8, 8, 3)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_a_run_is_made(cifar, write, tiny_training, runs, name, text, said):
    network = f"{name}:build" if text is None else write(name, text)
    outcome = cifar("train", *tiny_training, "--network", network)
    assert (outcome.code, runs()) == (2, [])
    assert f"--network: {network}: " in outcome.stderr
    assert said in outcome.stderr


def test_a_name_that_is_no_function_is_refused(cifar):
    outcome = cifar("train", "--network", "resnet")
    assert outcome.code == 2
    assert "report_cnn, fast or package.module:function" in outcome.stderr.replace("\n", " ")
