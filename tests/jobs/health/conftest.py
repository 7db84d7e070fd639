"""The doctor, and a store for it to look at."""

import json
import time

import pytest
from support import move_store


@pytest.fixture
def doctor(cifar, monkeypatch, work):
    """Runs the doctor; returns its exit code and its findings as text: severity, check, text, outcome."""
    monkeypatch.setenv("CIFAR_MLFLOW_STATE", str(work / "state"))
    monkeypatch.setenv("CIFAR_MLFLOW_DATA", "")

    def run(*words):
        outcome = cifar("doctor", "--format", "json", *words)
        assert "Traceback" not in outcome.output
        return outcome.code, json.loads(outcome.stdout)["findings"]

    return run


@pytest.fixture
def finished(work, doctor, trained_once, client):
    """A finished run in a store with files of its own."""
    move_store(trained_once[0].parent, work)
    experiment = client().get_experiment_by_name("tiny")
    (run,) = client().search_runs([experiment.experiment_id])
    return run


@pytest.fixture
def make_run(client):
    """Makes a RUNNING run with tags, as old as wanted; returns its id."""

    def make(tags, hours=1.0):
        begun = int(1000 * (time.time() - 3600 * hours))
        return client().create_run("0", begun, dict(tags), "forged").info.run_id

    return make
