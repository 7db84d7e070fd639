"""A sweep's runs in the store: its parent, its children, and those that processes left RUNNING when they ended.

A sweep is known by `sweep_id`, the run id of its first parent, a tag of the parent and of every child. The parent may
change: under `mlflow run` each start comes with a run of its own, which then takes over the children.
"""

import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import yaml

from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.text import did_you_mean
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import naming, runs
from cifar_mlflow.tracking.store import Run, Store, redact
from cifar_mlflow.tracking.writing.recorder import Recorder

SPEC_FILE = "sweep.yaml"
WINNER_TAG = "winner_run"
CLOSING_SECONDS = 60.0  # that processes whose driver is gone have to close their runs


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
    current = _current(store, [experiment_id], name)
    if not current:
        return None
    info, tags = current[-1].info, current[-1].data.tags
    spec = yaml.safe_load(runs.read_artifact(store, info.run_id, SPEC_FILE) or b"")  # nothing becomes None
    return EarlierSweep(info.run_id, tags.get("sweep_id", info.run_id), info.status, dict(tags), spec)


def _current(store: Store, experiment_ids: Collection[str], name: str) -> list[Run]:
    parents = runs.search(store, experiment_ids, f"tags.kind = 'sweep' and tags.sweep = '{name}'")
    return [run for run in parents if "superseded_by" not in run.data.tags]


def winner(store: Store, what: str) -> str:
    """The run that stands for the winner of the sweep `what`: its name, or the run id of its parent or a beginning.

    ModelError if there is no such sweep, several have the name, it was started anew, or it has no winner (yet): what
    an earlier start has found does not count while it runs again, nor after that was broken off.
    """
    everywhere, current = runs.experiments(store).values(), []
    if runs.RUN_ID.fullmatch(what):
        current = runs.search(store, everywhere, f"tags.kind = 'sweep' and attributes.run_id = '{what}'")
    elif re.fullmatch(r"[\w.-]+", what):
        current = _current(store, everywhere, what)
        if naming.BEGINNING.fullmatch(what):
            current += runs.search(store, everywhere, f"tags.kind = 'sweep' and attributes.run_id LIKE '{what}%'")
    if not current:
        hint = did_you_mean(what, names(store))
        raise ModelError(f"there is no sweep {what!r} in {redact(store.uri)}{hint}")
    if len(current) > 1:
        several = ", ".join(run.info.run_id for run in current)
        raise ModelError(f"several sweeps are called {what!r}; give the run id of one: {several}")
    tags, status = current[0].data.tags, current[0].info.status
    if successor := tags.get("superseded_by"):
        raise ModelError(f"the sweep {what!r} was started anew; give the run id of that start: {successor}")
    if status != "FINISHED":
        when = "it ends" if status == "RUNNING" else "`cifar-mlflow sweep` has taken it to its end"
        raise ModelError(f"the sweep {what!r} is {status}: it has a winner when {when}")
    chosen = tags.get(WINNER_TAG)
    if not chosen:
        raise ModelError(f"the sweep {what!r} has no winner")
    return str(chosen)


def names(store: Store) -> set[str]:
    """What the sweeps of all experiments are called."""
    parents = runs.search(store, runs.experiments(store).values(), "tags.kind = 'sweep'")
    return {run.data.tags.get("sweep", "") for run in parents}


def start_parent(store: Store, experiment: str, name: str, earlier: EarlierSweep | None) -> tuple[Recorder, str]:
    """The run that stands for the sweep, RUNNING, and the sweep's id; TrackingError if another process writes it."""
    if earlier and earlier.status == "RUNNING":
        what = f"the sweep (run {earlier.parent_id})"
        processes.refuse_if_busy(what, earlier.parent_id, earlier.tags, "start again")
    tags = {"kind": "sweep", "sweep": name, **processes.process_tags()}
    if earlier and not store.project_run_id:
        parent = Recorder.reopen(store, earlier.parent_id)
    else:
        parent = Recorder.start(store, experiment, name, tags)
    sweep_id = earlier.sweep_id if earlier else parent.run_id
    parent.set_tags({**tags, "sweep_id": sweep_id})
    if earlier and earlier.parent_id != parent.run_id:
        store.client.set_tag(earlier.parent_id, "superseded_by", parent.run_id)
        if earlier.status == "RUNNING":
            store.client.set_terminated(earlier.parent_id, "KILLED")
        for child in children(store, parent.experiment_id, sweep_id):
            store.client.set_tag(child.info.run_id, "mlflow.parentRunId", parent.run_id)
    return parent, sweep_id


def children(store: Store, experiment_id: str, sweep_id: str, status: str | None = None) -> list[Run]:
    """The runs of the sweep's trials, all or those of a status, the oldest first."""
    extra = f" and attributes.status = '{status}'" if status else ""
    return runs.search(store, [experiment_id], f"tags.kind = 'trial' and tags.sweep_id = '{sweep_id}'{extra}")


def close_abandoned(store: Store, experiment_id: str, sweep_id: str, on_wait: Callable[[], None] | None = None) -> None:
    """Closes as KILLED the runs left RUNNING by processes that are gone.

    Workers notice within moments that their driver is gone, and close their runs themselves: that is waited for, and
    `on_wait` is called once if it takes any time. TrackingError if, after a minute, a process is still at work.
    """
    deadline = time.monotonic() + CLOSING_SECONDS
    while alive := close_lost(store, experiment_id, sweep_id, "the process that trained it is gone", "KILLED"):
        if time.monotonic() > deadline:
            numbers = ", ".join(sorted({run.data.tags["process_id"] for run in alive}))
            raise TrackingError(f"runs of this sweep are still being trained by process {numbers}; stop it first")
        if on_wait:
            on_wait()
            on_wait = None
        time.sleep(0.2)


def close_lost(store: Store, experiment_id: str, sweep_id: str, reason: str, status: str) -> list[Run]:
    """Closes the runs whose process on this machine is gone; returns those whose process is alive."""
    alive = []
    for run in children(store, experiment_id, sweep_id, "RUNNING"):
        if processes.is_gone(run.data.tags):
            close(store, run.info.run_id, reason, status)
        elif not processes.is_elsewhere(run.data.tags):
            alive.append(run)
    return alive


def close(store: Store, run_id: str, reason: str, status: str = "KILLED") -> None:
    """Ends a run in the place of the process that should have."""
    store.client.set_tag(run_id, "failure", reason)
    store.client.set_terminated(run_id, status)
