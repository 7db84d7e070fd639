"""A training that starts from the model of another: found, recorded, resumed, done again, in a sweep."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from support import tiny_arrays

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.jobs.sweeping import trial
from cifar_mlflow.learning.networks.build import build

ONE_EPOCH = ("--epochs", "1")


def report_cnn(seed=7, classes=3):
    torch.manual_seed(seed)
    return build(resolve({}), classes, (8, 8, 3)).state_dict()


@pytest.fixture
def started(cifar, trained, tiny_training, runs):
    """A run that started from the model of another."""
    outcome = cifar("train", *tiny_training, *ONE_EPOCH, "--pretrained", trained.info.run_id)
    assert outcome.code == 0, outcome.output
    return outcome, runs()[0]


def test_a_model_is_the_start_and_the_run_says_which(started, trained):
    outcome, run = started
    tags = run.data.tags
    assert tags["pretrained_source"].startswith("models:/m-")
    assert len(tags["pretrained_digest"]) == 32
    assert f"report_cnn: starts from {tags['pretrained_source']}: all weights" in outcome.stderr
    # After one more epoch it knows what the first had learned in three.
    assert run.data.metrics["final_val_accuracy"] >= trained.data.metrics["final_val_accuracy"]


def test_it_is_done_again_to_the_bit_whatever_the_alias_names_by_now(cifar, trained, tiny_training, runs, client):
    def champion(run_id):
        (model,) = [
            output.model_id
            for output in client().get_run(run_id).outputs.model_outputs
            if client().get_logged_model(output.model_id).tags["weights"] == "last"
        ]
        version = client().create_model_version("tiny", f"models:/{model}", model_id=model)
        client().set_registered_model_alias("tiny", "champion", version.version)

    client().create_registered_model("tiny")
    champion(trained.info.run_id)
    assert cifar("train", *tiny_training, *ONE_EPOCH, "--pretrained", "tiny@champion").code == 0
    run = runs()[0]
    champion(run.info.run_id)
    outcome = cifar("reproduce", run.info.run_id)
    assert outcome.stdout.splitlines()[-1].startswith("identical to the bit"), outcome.output
    assert runs()[0].data.tags["pretrained_digest"] == run.data.tags["pretrained_digest"]
    printed = cifar("reproduce", run.info.run_id, "--print-command").stdout
    assert f"--pretrained {run.data.tags['pretrained_source']}" in printed


def test_a_file_is_the_start_and_another_is_another_run(cifar, tiny_training, runs, work):
    found = []
    for seed in (1, 1, 2):
        save_file(dict(report_cnn(seed)), work / "start.safetensors")
        assert cifar("train", *tiny_training, *ONE_EPOCH, "--pretrained", "start.safetensors").code == 0
        found.append(runs()[0].data)
    assert found[0].params["pretrained"] == str(work.resolve() / "start.safetensors")
    assert len({run.tags["config_fingerprint"] for run in found}) == 1
    digests = [run.tags["run_fingerprint"] for run in found]
    assert digests[0] == digests[1] != digests[2]
    assert found[0].metrics["train_loss"] == found[1].metrics["train_loss"] != found[2].metrics["train_loss"]
    compared = json.loads(cifar("compare", "tiny", "--format", "json").stdout)
    assert len(compared["configurations"]) == 2


def test_a_file_that_changed_ends_resume_and_reproduce(cifar, tiny_training, runs, work, client):
    torch.save(report_cnn(1), work / "start.pt")
    assert cifar("train", *tiny_training, *ONE_EPOCH, "--pretrained", "start.pt").code == 0
    run_id = runs()[0].info.run_id
    torch.save(report_cnn(2), work / "start.pt")
    client().set_terminated(run_id, "KILLED")
    for words in (("train", "--resume", run_id), ("reproduce", run_id)):
        outcome = cifar(*words)
        assert outcome.code == 3
        assert "start.pt is not what the run began with (digest" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--pretrained", "0" * 32), 6, "no run"),
        (("--pretrained", "tiny@champion"), 6, "tiny"),
        (("--pretrained", "missing.pt"), 3, "missing.pt cannot be read"),
        (("--pretrained", "0" * 32, "--offline"), 2, "is a model of the tracking store, and --offline asks for none"),
        (("--pretrained", "other.pt"), 2, "0.weight: nothing there, (16, 3, 3, 3) here"),
        (("--network", "torchvision:resnet81"), 2, "did you mean torchvision:resnet18?"),
    ],
)
def test_what_does_not_go_is_told_before_there_is_a_run(cifar, tiny_training, runs, work, words, code, told):
    torch.save({"weight": torch.zeros(1)}, work / "other.pt")
    outcome = cifar("train", *tiny_training, *words)
    assert (outcome.code, runs()) == (code, []), outcome.output
    assert told in outcome.stderr


def test_a_sweep_varies_the_start(cifar, trained, tiny, work, empty_store, monkeypatch):
    shutil.copy(empty_store, work / "another.db")
    with monkeypatch.context() as patch:  # an earlier sweep of this process had another store
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/another.db")
        trial._store()
    torch.save(report_cnn(3), work / "start.pt")
    spec = {
        "name": "starts",
        "base": {"dataset": str(tiny), "epochs": 1, "batch_size": 8, "precision": "float32"},
        "space": {"pretrained": ["none", "start.pt", trained.info.run_id]},
        "log_models": False,
        "workers": 1,
    }
    (work / "spec.yaml").write_text(json.dumps(spec))
    outcome = cifar("sweep", "spec.yaml")
    assert outcome.code == 0, outcome.output
    assert cifar("sweep", "spec.yaml").code == 0  # nothing is left to do
    torch.save(report_cnn(4), work / "start.pt")
    outcome = cifar("sweep", "spec.yaml")
    assert outcome.code == 2
    assert f"pretrained: {work.resolve() / 'start.pt'} is not what" in outcome.stderr


def test_a_network_of_torchvision_is_trained_kept_and_used(cifar, write_npz, runs, work):
    gray = write_npz(**tiny_arrays(channels=1))
    words = ("--network", "torchvision:squeezenet1_1", "--batch-size", 32, *ONE_EPOCH)
    outcome = cifar("train", "--dataset", gray, *words)
    assert outcome.code == 0, outcome.output
    (run,) = runs()
    fitted = "features.0 steps by 1 pixel instead of 2; features.2 is left out; gray images repeated in 3 channels"
    assert run.data.tags["network_fitted"] == fitted
    assert f"torchvision:squeezenet1_1: fitted to the images: {fitted}" in outcome.stderr
    assert run.info.run_name == "changed-squeezenet1_1-adam-seed0"
    assert "network_digest" not in run.data.tags
    assert run.data.tags["mlflow.note.content"].startswith("torchvision:squeezenet1_1 on changed (108 training images)")
    assert cifar("predict", run.info.run_id, gray).code == 0
    outcome = cifar("train", "--dataset", gray, *words, "--pretrained", run.info.run_id, "--freeze", "backbone")
    assert outcome.code == 0, outcome.output
