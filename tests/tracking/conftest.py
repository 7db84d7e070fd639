"""What a store that cannot be used says."""

import pytest
from mlflow import MlflowClient

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.store import redact, translated_errors

LOST = "7401" + "0" * 28  # a run's id that has a status in it


@pytest.fixture
def told(monkeypatch):
    """What is told when the run LOST is asked for in the store at `uri`, which is shown as URI."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")

    def ask(uri):
        with pytest.raises(TrackingError) as raised, translated_errors(uri):
            MlflowClient(uri).get_run(LOST)
        assert "secret" not in str(raised.value)
        return str(raised.value).replace(redact(uri), "URI")

    return ask
