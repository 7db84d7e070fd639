"""Sweeps on a tiny dataset: real processes, real SQLite."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from support import move_store, run_here, standing_in
from sweeps import BASE, SPACE, comparable


@pytest.fixture
def write_spec(work, tiny):
    """Writes the spec of a sweep on the tiny dataset, with some keys changed; returns its path."""

    def write(base=None, **changes) -> Path:
        spec = {
            "name": "tiny",
            "base": {"dataset": str(tiny), **BASE, **(base or {})},
            "space": SPACE,
            "repeats": 2,
            "workers": 1,
            "log_models": False,
            **changes,
        }
        path = work / "sweep.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path

    return write


@pytest.fixture(scope="session")
def _uninterrupted(tmp_path_factory, tiny, empty_store):
    """A sweep that ran to its end: the directory that it ran in, what it printed, and its table."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    with standing_in(directory) as work:
        shutil.copy(empty_store, work / "mlflow.db")
        spec = {"name": "tiny", "base": {"dataset": str(tiny), **BASE}, "space": SPACE, "repeats": 2}
        (work / "sweep.yaml").write_text(yaml.safe_dump({**spec, "log_models": False}))
        outcome = run_here("sweep", "sweep.yaml")
        assert outcome.code == 0, outcome.output
        (results,) = work.rglob("results.csv")
        return directory, outcome, comparable(results)


@pytest.fixture
def finished(work, _uninterrupted):
    """A copy of that sweep in the current directory, artifacts and all; returns what it printed."""
    directory, outcome, _ = _uninterrupted
    move_store(directory / "work", work)
    shutil.copytree(directory / "state", work.parent / "state", dirs_exist_ok=True)
    return outcome


@pytest.fixture
def expected(_uninterrupted):
    """The table of the uninterrupted sweep."""
    return _uninterrupted[2]


@pytest.fixture
def parent(runs):
    """A function that returns the one parent run of the store."""

    def only():
        (found,) = [run for run in runs() if run.data.tags.get("kind") == "sweep"]
        return found

    return only


@pytest.fixture
def children(runs):
    return lambda: [run for run in runs() if run.data.tags.get("kind") == "trial"]


@pytest.fixture
def table(client, parent, tmp_path):
    """A function that returns the comparable table of the store's sweep."""
    return lambda: comparable(Path(client().download_artifacts(parent().info.run_id, "results.csv", str(tmp_path))))
