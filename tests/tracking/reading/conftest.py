"""What trainings leave in a store, written without training anything."""

from __future__ import annotations

import pytest

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.store import Store, connect

GONE = {"process_id": "1", "process_ticks": "1", "process_started": "0.00"}


@pytest.fixture
def store(cifar) -> Store:
    return connect()


@pytest.fixture
def training(store):
    """Makes a run as a training leaves it; returns its id. A tag that is None is left out."""

    def make(status="FINISHED", experiment="digits", alive=False, tags=(), metrics=(), **fields):
        config = resolve({"dataset": "digits", "epochs": 2, "scheduler": "none", **fields})
        described = {
            "kind": "single",
            "config_fingerprint": config.fingerprint,
            "dataset_digest": "0123456789abcdef",
            **dict.fromkeys(("device", "precision_used", "threads_used"), "1"),
            **processes.process_tags(),
            **({} if alive else GONE),
            **dict(tags),
        }
        kept = {name: value for name, value in described.items() if value is not None}
        info = store.client.create_run(store.experiment_id(experiment), tags=kept, run_name="digits-seed0").info
        for name, value in config.as_options().items():
            store.client.log_param(info.run_id, name, value)
        for name, value in dict(metrics).items():
            store.client.log_metric(info.run_id, name, value)
        if status != "RUNNING":
            store.client.set_terminated(info.run_id, status)
        return info.run_id

    return make


@pytest.fixture
def logged(store):
    """Makes a logged model of a run; returns its id."""

    def make(run_id=None, weights="last", ready=True, **tags):
        from mlflow.entities import LoggedModelStatus

        experiment_id = store.client.get_run(run_id).info.experiment_id if run_id else "0"
        options = {"name": "net", "source_run_id": run_id, "tags": {"weights": weights, **tags}}
        model_id = store.client.create_logged_model(experiment_id, **options).model_id
        if ready:
            store.client.finalize_logged_model(model_id, LoggedModelStatus.READY)
        return model_id

    return make
