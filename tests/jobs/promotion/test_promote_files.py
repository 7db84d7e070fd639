"""`promote` of files that are not what was logged: each is refused by the gate that should, and nothing of it runs."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import yaml

from cifar_mlflow.tracking.writing import digests

pytestmark = pytest.mark.usefixtures("smoke_here")


def gates(verdict):
    return {gate["name"]: gate["passed"] for gate in verdict["gates"]}


def version_tags(client, version):
    return client().get_model_version("tiny", version).tags


def test_one_changed_byte(promote, candidates, model_directory, champion, client):
    file = model_directory(candidates.good[0]) / "data" / "model.pt2"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    code, verdict = promote(candidates.good[0])
    assert code == 7
    assert verdict["failed"] == ["integrity", "smoke", "evaluation"]
    assert "data/model.pt2 was changed" in version_tags(client, "1")["rejected"]
    assert champion() is None


def test_swapped_weights(promote, candidates, model_directory):
    one, other = (model_directory(run) / "data" / "model.pt2" for run in (candidates.good[0], candidates.broken))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    for run in (candidates.good[0], candidates.broken):
        assert "integrity" in promote(run)[1]["failed"]


def test_swapped_weights_with_the_digests_made_to_fit(promote, candidates, model_directory, client):
    """Who can write the store as well is found out by the answers."""
    directory = model_directory(candidates.good[0])
    (directory / "data" / "model.pt2").write_bytes(
        (model_directory(candidates.broken) / "data" / "model.pt2").read_bytes()
    )
    model_id = directory.parent.name
    client().set_logged_model_tags(model_id, digests.tags(directory))
    code, verdict = promote(candidates.good[0])
    assert (code, gates(verdict)["integrity"], gates(verdict)["smoke"]) == (7, True, False)


class Explosive:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("recorded", ["as they were", "made to fit"])
def test_a_pickle_in_place_of_the_model_does_not_run(promote, candidates, model_directory, client, work, recorded):
    directory = model_directory(candidates.good[0])
    trap = work / "it-ran"
    (directory / "data" / "model.pt2").write_bytes(pickle.dumps(Explosive(trap)))
    if recorded == "made to fit":
        client().set_logged_model_tags(directory.parent.name, digests.tags(directory))
    code, verdict = promote(candidates.good[0])
    assert code == 7
    assert "smoke" in verdict["failed"]
    assert not trap.exists()


@pytest.mark.parametrize("change", ["loader_module: mlflow.pytorch -> loader_module: evil", "code: null -> code: code"])
def test_an_mlmodel_file_that_asks_for_code(promote, candidates, model_directory, client, change):
    directory = model_directory(candidates.good[0])
    old, new = change.split(" -> ")
    text = (directory / "MLmodel").read_text()
    changed = (
        text.replace(old, new)
        if old in text
        else text.replace("  python_function:", f"  python_function:\n    {new}", 1)
    )
    assert changed != text
    (directory / "MLmodel").write_text(changed)
    client().set_logged_model_tags(directory.parent.name, digests.tags(directory))
    code, verdict = promote(candidates.good[0])
    assert (code, gates(verdict)["smoke"]) == (7, False)
    assert "asks for" in json.dumps(verdict["gates"])


@pytest.mark.parametrize("name", ["input_example.json", "serving_input_example.json", digests.EXAMPLE_ANSWER])
def test_a_deleted_example(promote, candidates, model_directory, name):
    (model_directory(candidates.good[0]) / name).unlink()
    code, verdict = promote(candidates.good[0])
    assert code == 7
    assert f"{name} is missing" in json.dumps(verdict)


def test_a_model_without_example_and_signature(promote, candidates, model_directory, client):
    directory = model_directory(candidates.good[0])
    described = yaml.safe_load((directory / "MLmodel").read_text())
    del described["signature"], described["saved_input_example_info"]
    (directory / "MLmodel").write_text(yaml.safe_dump(described))
    client().set_logged_model_tags(directory.parent.name, digests.tags(directory))
    code, verdict = promote(candidates.good[0])
    assert (code, gates(verdict)["record"]) == (7, False)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_changed_files_are_loaded_by_no_command(cifar, candidates, model_directory, tiny, command):
    file = model_directory(candidates.good[0]) / "data" / "model.pt2"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    outcome = cifar(command, candidates.good[0], *([tiny] if command == "predict" else []))
    assert outcome.code == 6
    assert "data/model.pt2 was changed" in outcome.stderr


def test_files_that_are_gone(cifar, candidates, model_directory):
    shutil.rmtree(model_directory(candidates.good[0]))
    outcome = cifar("promote", candidates.good[0])
    assert outcome.code == 6
    assert "are gone" in outcome.stderr


def test_a_run_that_did_not_finish(promote, candidates, client):
    client().set_terminated(candidates.good[0], "KILLED")
    code, verdict = promote(candidates.good[0])
    assert (code, verdict["failed"]) == (7, ["record"])


def test_damaged_predictions(cifar, candidates, client):
    (Path(client().get_run(candidates.good[0]).info.artifact_uri) / "test_predictions.npz").write_bytes(b"PK\x03\x04")
    outcome = cifar("promote", candidates.good[0])
    assert outcome.code == 6
    assert "cifar-mlflow evaluate" in outcome.stderr
