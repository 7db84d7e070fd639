"""A run that was deleted: its model still predicts, and what needs the run says how to restore it."""

import shutil

import pytest
from click.testing import CliRunner

pytestmark = pytest.mark.usefixtures("smoke_here")


@pytest.fixture
def gc(work):
    """Removes deleted runs for good, as `mlflow gc` does."""

    def run():
        from mlflow.cli import cli

        uri = f"sqlite:///{work}/mlflow.db"
        outcome = CliRunner().invoke(cli, ["gc", "--backend-store-uri", uri, "--tracking-uri", uri])
        assert outcome.exit_code == 0, outcome.output

    return run


def test_the_model_is_the_whole_answer(promote, candidates, cifar, client, gc, tiny):
    promote(candidates.good[0])
    expected = cifar("predict", "tiny@champion", tiny, "--format", "csv")
    client().delete_run(candidates.good[0])
    assert cifar("predict", candidates.good[0], tiny, "--format", "csv").stdout == expected.stdout
    gc()
    outcome = cifar("predict", "tiny@champion", tiny, "--format", "csv")
    assert (outcome.code, outcome.stdout) == (0, expected.stdout)
    refused = cifar("evaluate", "tiny@champion")
    assert refused.code == 6
    assert f"there is no run {candidates.good[0]}" in refused.stderr
    assert "can still be used: cifar-mlflow predict" in refused.stderr


@pytest.mark.parametrize("command", ["evaluate", "promote", "compare", "reproduce"])
def test_what_needs_the_run_says_how_to_restore_it(cifar, candidates, client, runs, command):
    client().delete_run(candidates.good[0])
    there = len(runs())
    outcome = cifar(command, candidates.good[0])
    assert outcome.code == 6
    assert f"was deleted; restore it by `mlflow runs restore --run-id {candidates.good[0]}`" in outcome.stderr
    assert len(runs()) == there


def test_a_run_that_was_deleted_with_its_experiment(cifar, candidates, client):
    experiment_id = client().get_run(candidates.good[0]).info.experiment_id
    client().delete_experiment(experiment_id)
    for command in ("evaluate", "compare"):
        outcome = cifar(command, candidates.good[0])
        assert outcome.code == 6
        assert f"with its experiment 'tiny'; restore it by `mlflow experiments restore -x {experiment_id}`" in (
            outcome.stderr
        )


@pytest.mark.parametrize("command", [("train", "--resume"), ("reproduce",)])
def test_an_experiment_that_was_deleted_alone(cifar, candidates, client, statuses, command):
    """As where its run was restored, and it was not: told before anything is trained."""
    experiment_id = client().get_run(candidates.good[0]).info.experiment_id
    client().set_terminated(candidates.good[0], "KILLED")
    client().delete_experiment(experiment_id)
    client().restore_run(candidates.good[0])
    before = statuses()
    outcome = cifar(*command, candidates.good[0])
    assert outcome.code == 6
    assert f"was deleted; restore it by `mlflow experiments restore -x {experiment_id}`" in outcome.stderr
    assert len(statuses()) == len(before)


@pytest.mark.parametrize("gone", ["run", "files", "a byte"])
def test_no_rollback_to_what_is_gone(promote, candidates, cifar, client, champion, model_directory, gone):
    directory = model_directory(candidates.good[0])
    promote(candidates.good[0])
    promote(candidates.good[1])
    if gone == "run":
        client().delete_run(candidates.good[0])
    elif gone == "files":
        shutil.rmtree(directory)
    else:
        (directory / "requirements.txt").write_text("torch\n")
    outcome = cifar("rollback", "tiny")
    assert (outcome.code, champion(), champion("previous")) == (7, "2", "1")
    assert "tiny version 1 cannot be brought back: " in outcome.stderr
    said = {"run": "mlflow runs restore", "files": "are gone", "a byte": "requirements.txt was changed"}
    assert said[gone] in outcome.stderr
