"""Trainings that are slow enough for an outage, and what must have arrived of them."""

import json
import os
import statistics
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cifar_mlflow.tracking.outbox import state

EPOCHS = 24
TRAINING = ("--epochs", EPOCHS, "--batch-size", 40, "--scheduler", "none", "--precision", "float32")
METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "lr", "images_per_second")
LONG = pytest.mark.long
# Seconds of a write: half of them within 1% of an epoch of CIFAR-10 on two cores, and even where the disk is busy none
# as long as the store is waited for.
USUAL, TIMEOUT = 0.25, 1


def slow_and_measured():
    """In the training's process: an epoch takes a moment, and what each write has cost is noted."""
    from cifar_mlflow.tracking.outbox import spooled_recorder

    os.environ |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    spooled_recorder.DRAIN_TIMEOUT = 2.0
    log_metrics = spooled_recorder.SpooledRecorder.log_metrics
    costs = []

    def measured(self, *arguments, **options):
        begun = time.perf_counter()
        log_metrics(self, *arguments, **options)
        if "step" in options:  # those of an epoch
            costs.append(time.perf_counter() - begun)
            Path("costs.json").write_text(json.dumps(costs))
            time.sleep(0.1)

    spooled_recorder.SpooledRecorder.log_metrics = measured


def the_run(address, work):
    """The client and the id of the run whose outbox is in the state directory, once there are two epochs."""
    client, deadline = MlflowClient(address), time.monotonic() + 120
    while time.monotonic() < deadline:
        for outbox in (work / "state" / "spool").glob("*/outbox.sqlite"):
            run_id = state.look(outbox.parent).run_id
            if run_id and len(client.get_metric_history(run_id, "val_accuracy")) >= 2:
                return client, run_id
        time.sleep(0.1)
    raise AssertionError("no run has begun")


def written_epochs(work):
    costs = work / "costs.json"
    try:
        return len(json.loads(costs.read_text()))
    except (OSError, ValueError):
        return 0


def wait_for_epochs(work, more):
    until, deadline = min(written_epochs(work) + more, EPOCHS), time.monotonic() + 120
    while written_epochs(work) < until:
        assert time.monotonic() < deadline, "the training stands still"
        time.sleep(0.05)


def assert_complete(client, run_id, status="FINISHED"):
    """Every point of every metric once, the files, both models, and the run's end."""
    for name in METRICS:
        assert [point.step for point in client.get_metric_history(run_id, name)] == list(range(1, EPOCHS + 1)), name
    run = client.get_run(run_id)
    assert run.info.status == status
    assert {"curves.png", "confusion_matrix.png", "config.yaml"} <= {
        file.path for file in client.list_artifacts(run_id)
    }
    models = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
    assert sorted((model.tags["weights"], str(model.status)) for model in models) == [
        ("best", "READY"),
        ("last", "READY"),
    ]
    assert {"best_val_accuracy", "final_val_accuracy"} <= set(run.data.metrics)


def assert_never_blocked(work):
    costs = json.loads((work / "costs.json").read_text())
    assert len(costs) == EPOCHS
    assert statistics.median(costs) < USUAL
    assert max(costs) < TIMEOUT
