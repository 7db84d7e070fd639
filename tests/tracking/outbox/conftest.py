"""Outboxes, and stores in the current directory."""

import os
import shutil

import pytest
from outboxes import KEY
from support import RUN

from cifar_mlflow.directories import spool_directory
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.store import connect


@pytest.fixture
def connect_to(work, empty_store):
    """Connects to a store in the current directory, which is made as a copy of `like`, else empty."""

    def to(name, like=None):
        shutil.copy(work / f"{like}.db" if like else empty_store, work / f"{name}.db")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{work}/{name}.db"
        return connect()

    return to


@pytest.fixture
def store(connect_to):
    return connect_to("home")


@pytest.fixture
def opened():
    """Makes outboxes of runs that began without a store."""
    made = []

    def make(name=KEY, **changes):
        outbox = Outbox(spool_directory() / name, new=True)
        made.append(outbox)
        outbox.append("run", **RUN | changes)
        return outbox

    yield make
    for outbox in made:
        outbox.close()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "spool" / "one"


@pytest.fixture
def outbox(place):
    opened = Outbox(place, new=True)
    opened.append("run", **RUN)
    yield opened
    opened.close()
