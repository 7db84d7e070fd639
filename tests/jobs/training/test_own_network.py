"""A network of the user's own is trained, logged and used like ours; what is wrong with it is told beforehand."""

import shutil
import sys
from pathlib import Path

import pytest

NETWORK = "from torch import nn\ndef build(classes, config):\n    return {}"
EXAMPLE = Path(__file__).parents[3] / "experiments" / "own_network.py"


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


class TestTheSource:
    @pytest.fixture
    def trained(self, cifar, write, work, runs, tiny_training):
        """A run of a network in two files, which stand in a directory of their own."""
        (work / "mine_layers.py").write_text("from torch import nn\nactivation = nn.ReLU\n")
        layers = "nn.Sequential(nn.Flatten(), nn.Linear(192, 5), mine_layers.activation(), nn.Linear(5, classes))"
        network = write("mine_network", "import mine_layers\n" + NETWORK.format(layers))
        outcome = cifar("train", *tiny_training, "--epochs", 1, "--network", network)
        assert outcome.code == 0, outcome.output
        yield runs()[0]
        for name in ("mine_layers", "mine_network"):
            sys.modules.pop(name, None)

    def test_is_kept_with_the_run_so_that_it_can_be_done_again(self, trained, client, work):
        kept = Path(client().download_artifacts(trained.info.run_id, "network"))
        assert {path.name for path in kept.iterdir()} == {"mine_layers.py", "mine_network.py"}
        assert (kept / "mine_layers.py").read_bytes() == (work / "mine_layers.py").read_bytes()

    def test_that_changed_makes_another_run_and_is_named_by_reproduce(self, trained, work, cifar, runs):
        for name in ("mine_layers", "mine_network"):  # as in a new process
            del sys.modules[name]
        (work / "mine_layers.py").write_text("from torch import nn\nactivation = nn.ELU\n")
        outcome = cifar("reproduce", trained.info.run_id, "--tolerance", "1e6")
        tags, again = trained.data.tags, runs()[0].data.tags
        there, here = tags["network_digest"], again["network_digest"]
        told = f"differs: source of the network mine_network:build {there} there, {here} here"
        assert told in outcome.stderr
        assert tags["config_fingerprint"] == again["config_fingerprint"]
        assert tags["run_fingerprint"] != again["run_fingerprint"]

    def test_that_was_edited_in_vain_is_told(self, trained, work, cifar, tiny_training, runs):
        (work / "mine_layers.py").write_text("from torch import nn\nactivation = nn.ELU\n")
        outcome = cifar("train", *tiny_training, "--epochs", 1, "--network", "mine_network:build")
        assert (
            "mine_layers.py of --network mine_network:build has changed since it was imported by this" in outcome.stderr
        )
        assert runs()[0].data.tags["network_digest"] == trained.data.tags["network_digest"]

    def test_that_changed_ends_a_resume(self, trained, client, work, cifar):
        client().set_terminated(trained.info.run_id, "KILLED")
        for name in ("mine_layers", "mine_network"):
            del sys.modules[name]
        (work / "mine_layers.py").write_text("from torch import nn\nactivation = nn.ELU\n")
        outcome = cifar("train", "--resume", trained.info.run_id)
        assert outcome.code == 2
        assert "--network: mine_network:build is not what the run began with" in outcome.stderr
        assert f"mlflow artifacts download --run-id {trained.info.run_id} --artifact-path network" in outcome.stderr


def test_a_name_that_is_no_function_is_refused(cifar):
    outcome = cifar("train", "--network", "resnet")
    assert outcome.code == 2
    assert "report_cnn, fast, torchvision:NAME or package.module:function" in outcome.stderr.replace("\n", " ")
