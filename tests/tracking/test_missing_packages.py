"""A store that needs a package which is not installed."""

import sys

import pytest

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import store


def test_for_its_artifacts(cifar, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    connected = store.connect()
    experiment = connected.client.create_experiment("far", artifact_location="s3://far/away")
    run = connected.client.create_run(experiment)
    with pytest.raises(TrackingError, match=r"needs a package .* not here \(.*boto3.*\); install it"):
        connected.client.log_text(run.info.run_id, "text", "file.txt")
