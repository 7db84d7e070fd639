"""A sweep on the nodes, and what it must come to: the table of the same sweep on this machine."""

from __future__ import annotations

import csv
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from support import InlineExecutor, run_here, standing_in

from cifar_mlflow.jobs.sweeping import places

SPACE = {"activation": ["relu", "elu"]}
BASE = {"epochs": 2, "batch_size": 8, "scheduler": "none", "precision": "float32"}


def write_spec(directory: Path, dataset: Path | str, base=None, **changes) -> Path:
    base = {"dataset": str(dataset), **BASE, **(base or {})}
    spec = {"name": "tiny", "base": base, "space": SPACE, "repeats": 2, "workers": 2, "log_models": False}
    path = directory / "sweep.yaml"
    path.write_text(yaml.safe_dump({**spec, **changes}))
    return path


def table(directory: Path) -> list[dict[str, str]]:
    """The table, without run ids and times."""
    (path,) = directory.rglob("results.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    return [{key: value for key, value in row.items() if key not in ("minutes", "run_ids")} for row in rows]


def local_table(spec: Path, directory: Path, empty_store: Path) -> list[dict[str, str]]:
    """That of the sweep in this process."""
    with pytest.MonkeyPatch.context() as patch, standing_in(directory) as place:
        patch.setattr(places, "ProcessExecutor", InlineExecutor)
        shutil.copy(empty_store, place / "mlflow.db")
        outcome = run_here("sweep", spec)
        assert outcome.code == 0, outcome.output
        return table(place)


def wait_for(condition, process, seconds: float = 300):
    """What the condition comes to, as soon as it is true; `process` must not end before."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def check(found, expected: list[dict[str, str]], work: Path, again: int = 0) -> list:
    """The table is the local one, no run is left RUNNING, and at most `again` trials were done twice."""
    assert table(work) == expected
    assert "RUNNING" not in {run.info.status for run in found}
    trials = [run for run in found if run.data.tags["kind"] == "trial"]
    done = Counter(run.data.tags["run_fingerprint"] for run in trials if run.info.status == "FINISHED")
    assert sum(done.values()) - len(done) <= again
    assert len(trials) - len(done) <= again
    assert {run.data.tags["executor"] for run in trials} == {"ray"}
    return trials
