"""An outbox with one record."""

import pytest
from support import RUN

from cifar_mlflow.tracking.outbox.log import Outbox


@pytest.fixture
def place(tmp_path):
    return tmp_path / "spool" / "one"


@pytest.fixture
def outbox(place):
    opened = Outbox(place, new=True)
    opened.append("run", **RUN)
    yield opened
    opened.close()
