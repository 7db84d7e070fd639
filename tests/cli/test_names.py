"""Each command that takes a run takes what `list` prints: the id, a beginning of it, the name."""

from __future__ import annotations

import json

import pytest

import cifar_mlflow as cm


@pytest.fixture(params=["id", "beginning", "name"])
def word(request, trained):
    run = trained.info
    return {"id": run.run_id, "beginning": run.run_id[:6], "name": run.run_name}[request.param]


def test_every_command_that_takes_a_run(cifar, trained, tiny, smoke_here, word):
    run_id = trained.info.run_id
    assert json.loads(cifar("evaluate", word, "--format", "json").stdout)["run_id"] == run_id
    assert cifar("predict", word, tiny).code == 0
    assert run_id in cifar("compare", word, "--format", "csv").stdout
    assert "cifar-mlflow train" in cifar("reproduce", word, "--print-command").stdout
    assert cifar("promote", word, "--dry-run").code == 0
    assert f"the run {run_id} is finished" in cifar("train", "--resume", word).stderr
    assert cm.load(word).classes


def test_a_name_that_two_runs_have(cifar, tiny_training, trained):
    name = trained.info.run_name
    cifar("train", *tiny_training, "--seed", "1", "--run-name", name)
    outcome = cifar("evaluate", name)
    assert outcome.code == 6
    assert f"'{name}' names 2 runs; give the id of one, or a beginning of it" in outcome.stderr
    assert f"  - {trained.info.run_id}: {name}, in tiny, FINISHED, begun " in outcome.stderr


@pytest.mark.parametrize("command", [("evaluate",), ("predict",), ("promote",), ("reproduce",), ("train", "--resume")])
def test_a_similar_name_is_hinted_at(cifar, trained, tiny, command):
    words = [*command, trained.info.run_name.replace("prelu", "prleu"), *([tiny] if command == ("predict",) else [])]
    outcome = cifar(*words)
    assert outcome.code == 6
    assert f"(did you mean {trained.info.run_name}?)" in outcome.stderr


def test_a_registered_model_that_is_named_without_its_alias(cifar, trained, client):
    (model,) = client().search_logged_models([trained.info.experiment_id], max_results=1)
    client().create_registered_model("tiny")
    client().create_model_version("tiny", f"models:/{model.model_id}", model_id=model.model_id)
    client().set_registered_model_alias("tiny", "champion", "1")
    assert "(did you mean tiny@champion?)" in cifar("evaluate", "tiny-champion").stderr
    assert "(did you mean tiny?)" in cifar("history", "tinny").stderr


def test_a_sweep_stands_for_its_winner(cifar, trained, client):
    run_id = trained.info.run_id
    client().create_run("0", run_name="grid", tags={"kind": "sweep", "sweep": "grid", "winner_run": run_id})
    (parent,) = client().search_runs(["0"], "tags.kind = 'sweep'")
    client().set_terminated(parent.info.run_id)
    assert json.loads(cifar("evaluate", "grid", "--format", "json").stdout)["run_id"] == run_id
