"""A training that is recorded at a server."""

import forked
import pytest
from through_outages import TRAINING, slow_and_measured


@pytest.fixture
def train(work, tiny):
    """Starts a training that is recorded at an address."""

    def start(address, *words):
        words = ("train", "--dataset", tiny, *TRAINING, *words)
        return forked.start(work, *words, tracking_uri=address, change=slow_and_measured)

    return start
