"""A sweep's runs in the store: its parent, its children, and what processes that are gone have left behind.

A sweep is known by `sweep_id`, the run id of its first parent, a tag of the parent and of every child. The parent may
change: under `mlflow run` each start comes with a run of its own, which then takes over the children.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import runs, selection
from cifar_mlflow.tracking.reading.models import RUN_ID
from cifar_mlflow.tracking.store import Store, redact, translated_errors
from cifar_mlflow.tracking.writing.recorder import Recorder

if TYPE_CHECKING:
    from mlflow.entities import Run

SPEC_FILE = "sweep.yaml"
WINNER_TAG = "winner_run"
PATIENCE = 60.0  # seconds for processes whose driver is gone to close their runs


@dataclass(frozen=True)
class EarlierSweep:
    """What an earlier start of the sweep has left: `spec` is None if it ended before it wrote one."""

    parent_id: str
    sweep_id: str
    status: str
    tags: dict[str, str]
    spec: dict[str, Any] | None


def find_sweep(store: Store, experiment_id: str, name: str) -> EarlierSweep | None:
    """The latest sweep of this name in the experiment that was not superseded by another start of it."""
    found = runs.search(store, [experiment_id], f"tags.kind = 'sweep' and tags.sweep = '{name}'")
    current = [run for run in found if "superseded_by" not in run.data.tags]
    if not current:
        return None
    run = current[-1]
    sweep_id = run.data.tags.get("sweep_id", run.info.run_id)
    return EarlierSweep(run.info.run_id, sweep_id, run.info.status, dict(run.data.tags), _spec(store, run.info.run_id))


def _spec(store: Store, run_id: str) -> dict[str, Any] | None:
    with translated_errors(store.uri), tempfile.TemporaryDirectory() as directory:
        if SPEC_FILE not in [file.path for file in store.client.list_artifacts(run_id)]:
            return None
        path = store.client.download_artifacts(run_id, SPEC_FILE, directory)
        spec: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return spec


def winner(store: Store, what: str) -> str:
    """The run that stands for the winner of the sweep `what`: its name, or the run id of its parent.

    Raises:
        ModelError: there is no such sweep, several have the name, or it has no winner (yet).
    """
    meant = f"attributes.run_id = '{what}'" if RUN_ID.fullmatch(what) else f"tags.sweep = '{what}'"
    found = []
    if re.fullmatch(r"[\w.-]+", what):
        found = runs.search(store, selection.experiments(store).values(), f"tags.kind = 'sweep' and {meant}")
    current = [run for run in found if "superseded_by" not in run.data.tags]
    if RUN_ID.fullmatch(what):
        current = found
    if not current:
        raise ModelError(f"there is no sweep {what!r} in {redact(store.uri)}")
    if len(current) > 1:
        several = ", ".join(run.info.run_id for run in current)
        raise ModelError(f"several sweeps are called {what!r}; give the run id of one: {several}")
    chosen = current[0].data.tags.get(WINNER_TAG)
    if not chosen:
        raise ModelError(f"the sweep {what!r} ({current[0].info.status}) has no winner, or not yet")
    return str(chosen)


def start_parent(store: Store, experiment: str, name: str, earlier: EarlierSweep | None) -> tuple[Recorder, str]:
    """The run that stands for the sweep, RUNNING, and the sweep's id.

    Raises:
        TrackingError: the earlier parent is being written by another process.
    """
    if earlier and earlier.status == "RUNNING":
        _refuse_if_busy(earlier)
    tags = {"kind": "sweep", "sweep": name, **processes.process_tags()}
    if earlier and not store.project_run_id:
        with translated_errors(store.uri):
            store.client.update_run(earlier.parent_id, status="RUNNING")
            run = store.client.get_run(earlier.parent_id)
        parent = Recorder(store, earlier.parent_id, run.info.experiment_id, run.info.run_name)
    else:
        parent = Recorder.start(store, experiment, name, tags)
    sweep_id = earlier.sweep_id if earlier else parent.run_id
    parent.set_tags({**tags, "sweep_id": sweep_id})
    if earlier and earlier.parent_id != parent.run_id:
        with translated_errors(store.uri):
            store.client.set_tag(earlier.parent_id, "superseded_by", parent.run_id)
            if earlier.status == "RUNNING":
                store.client.set_terminated(earlier.parent_id, "KILLED")
            for child in children(store, parent.experiment_id, sweep_id):
                store.client.set_tag(child.info.run_id, "mlflow.parentRunId", parent.run_id)
    return parent, sweep_id


def _refuse_if_busy(earlier: EarlierSweep) -> None:
    where = f"process {earlier.tags.get('process_id')} on {earlier.tags.get('host')}"
    if processes.is_elsewhere(earlier.tags):
        raise TrackingError(
            f"the sweep (run {earlier.parent_id}) is RUNNING by {where}. If that process is gone, say so with\n"
            f"  python -c \"import mlflow; mlflow.MlflowClient().set_terminated('{earlier.parent_id}', 'KILLED')\"\n"
            "and start again"
        )
    if processes.is_alive(earlier.tags):
        raise TrackingError(f"the sweep (run {earlier.parent_id}) is being run by {where}; wait for it, or stop it")


def children(store: Store, experiment_id: str, sweep_id: str, status: str | None = None) -> list[Run]:
    """The runs of the sweep's trials, all or those of a status, the oldest first."""
    extra = f" and attributes.status = '{status}'" if status else ""
    return runs.search(store, [experiment_id], f"tags.kind = 'trial' and tags.sweep_id = '{sweep_id}'{extra}")


def close_abandoned(store: Store, experiment_id: str, sweep_id: str, on_wait: Callable[[], None] | None = None) -> int:
    """Closes as KILLED the runs left RUNNING by processes that are gone; returns how many.

    Workers notice within moments that their driver is gone, and close their runs themselves: that is waited for, and
    `on_wait` is called once if it takes any time.

    Raises:
        TrackingError: after a minute, a process is still at work on a run.
    """
    closed = 0
    deadline = time.monotonic() + PATIENCE
    told = False
    while True:
        running = children(store, experiment_id, sweep_id, "RUNNING")
        here = [run for run in running if not processes.is_elsewhere(run.data.tags)]
        for run in here:
            if not processes.is_alive(run.data.tags):
                close(store, run.info.run_id, "the process that trained it is gone")
                closed += 1
        alive = [run for run in here if processes.is_alive(run.data.tags)]
        if not alive:
            return closed
        if time.monotonic() > deadline:
            numbers = ", ".join(sorted({run.data.tags["process_id"] for run in alive}))
            raise TrackingError(f"runs of this sweep are still being trained by process {numbers}; stop it first")
        if on_wait and not told:
            on_wait()
            told = True
        time.sleep(0.2)


def close_lost(store: Store, experiment_id: str, sweep_id: str, reason: str, status: str) -> None:
    """Closes the run of a worker that was killed, while the other workers go on."""
    for run in children(store, experiment_id, sweep_id, "RUNNING"):
        tags = run.data.tags
        if not processes.is_elsewhere(tags) and not processes.is_alive(tags):
            close(store, run.info.run_id, reason, status)


def close(store: Store, run_id: str, reason: str, status: str = "KILLED") -> None:
    """Ends a run in the place of the process that should have."""
    with translated_errors(store.uri):
        store.client.set_tag(run_id, "failure", reason)
        store.client.set_terminated(run_id, status)
