"""A server, and a training that is recorded there."""

import forked
import pytest
from servers import mlflow_server
from through_outages import TRAINING, slow_and_measured


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("outage")) as address:
        yield address


@pytest.fixture
def train(work, tiny):
    """Starts a training that is recorded at an address."""

    def start(address, *words):
        words = ("train", "--dataset", tiny, *TRAINING, *words)
        return forked.start(work, *words, tracking_uri=address, change=slow_and_measured)

    return start
