"""A sweep's runs in the store: its parent, its children, and those that processes left RUNNING when they ended.

A sweep is known by `sweep_id`, the run id of its first parent, a tag of the parent and of every child. The parent may
change: under `mlflow run` each start comes with a run of its own, which then takes over the children. The parent of a
sweep that is run in parts, each by a process somewhere, says which part is whose (see `claims`).
"""

import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import yaml

from cifar_mlflow.errors import ConfigurationError, ModelError, TrackingError
from cifar_mlflow.text import did_you_mean, whole_number
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import claims, naming, runs
from cifar_mlflow.tracking.store import Run, Store, redact
from cifar_mlflow.tracking.writing.recorder import Recorder

SPEC_FILE = "sweep.yaml"
WINNER_TAG = "winner_run"
OFFLINE = "offline"  # the sweep's id of trials that were recorded without a store, until they are taken in
CLOSING_SECONDS = 60.0  # that processes whose driver is gone have to close their runs


@dataclass(frozen=True)
class EarlierSweep:
    """What an earlier start of the sweep has left: `spec` is None if it ended before it wrote one."""

    parent_id: str
    sweep_id: str
    status: str
    tags: dict[str, str]
    spec: dict[str, Any] | None

    @property
    def parts(self) -> int | None:
        """Into how many parts it is divided; None if it is not."""
        return whole_number(self.tags.get(claims.COUNT_TAG), 0) or None


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


def start_parent(
    store: Store, experiment: str, name: str, earlier: EarlierSweep | None, parts: int | None = None
) -> tuple[Recorder, str]:
    """The run that stands for the sweep, RUNNING, and the sweep's id; to be called under the lease of the sweeps.

    Raises:
        ConfigurationError: it is not divided into so many `parts`.
        TrackingError: another process writes it.
    """
    if earlier:
        _refuse_busy(name, earlier, parts)
    tags = {"kind": "sweep", "sweep": name, **processes.process_tags()}
    if earlier and not store.project_run_id:
        parent = Recorder.reopen(store, earlier.parent_id)
    else:
        parent = Recorder.start(store, experiment, name, tags)
    if earlier and earlier.parts != parts:
        claims.forget(store, earlier.parent_id, earlier.tags)
    if parts:
        tags[claims.COUNT_TAG] = str(parts)
    sweep_id = earlier.sweep_id if earlier else parent.run_id
    parent.set_tags({**tags, "sweep_id": sweep_id})
    if earlier and earlier.parent_id != parent.run_id:
        store.client.set_tag(earlier.parent_id, "superseded_by", parent.run_id)
        if earlier.status == "RUNNING":
            store.client.set_terminated(earlier.parent_id, "KILLED")
        for child in children(store, parent.experiment_id, sweep_id):
            store.client.set_tag(child.info.run_id, "mlflow.parentRunId", parent.run_id)
    return parent, sweep_id


def _refuse_busy(name: str, earlier: EarlierSweep, parts: int | None) -> None:
    what = f"the sweep {name} (run {earlier.parent_id})"
    if earlier.parts is None:
        if earlier.status == "RUNNING":
            processes.refuse_if_busy(what, earlier.parent_id, earlier.tags, "start again")
        return
    at_work = [claims.describe(number, earlier.parts, claim) for number, claim in claims.running(earlier.tags).items()]
    if parts is not None and parts != earlier.parts and (at_work or earlier.status != "FINISHED"):
        raise ConfigurationError(
            f"--part: {parts} parts are refused: {what} was begun in {earlier.parts}; give --part I/{earlier.parts}, "
            "or, once none of its parts is being run, leave --part out to have the rest run by one process",
            "options",
        )
    if parts is None and at_work:
        raise TrackingError(f"{what} is being run in parts: {', '.join(at_work)}; wait for them, or stop them")


def offline_trials(store: Store, experiment_id: str, name: str) -> list[Run]:
    """The delivered runs of the sweep's trials that were recorded without a store, and belong to no parent yet."""
    condition = f"tags.kind = 'trial' and tags.sweep = '{name}' and tags.sweep_id = '{OFFLINE}'"
    return runs.search(store, [experiment_id], condition)


def take_in(store: Store, trial: Run, parent_id: str, sweep_id: str) -> None:
    """Makes a run that was recorded without a store the sweep's own."""
    store.client.set_tag(trial.info.run_id, "mlflow.parentRunId", parent_id)
    store.client.set_tag(trial.info.run_id, "sweep_id", sweep_id)


def children(store: Store, experiment_id: str, sweep_id: str, status: str | None = None) -> list[Run]:
    """The runs of the sweep's trials, all or those of a status, the oldest first."""
    extra = f" and attributes.status = '{status}'" if status else ""
    return runs.search(store, [experiment_id], f"tags.kind = 'trial' and tags.sweep_id = '{sweep_id}'{extra}")


def close_abandoned(
    store: Store,
    experiment_id: str,
    sweep_id: str,
    on_wait: Callable[[], None] | None = None,
    parts: Collection[str] | None = None,
) -> None:
    """Closes as KILLED the runs left RUNNING by processes that are gone; `parts` as in `close_lost`.

    Workers notice within moments that their driver is gone, and close their runs themselves: that is waited for, and
    `on_wait` is called once if it takes any time. Those in a cluster, which ends them with their driver, are taken for
    gone when they have not closed theirs. TrackingError if, after a minute, a process here is still at work.
    """
    deadline, gone = time.monotonic() + CLOSING_SECONDS, "the process that trained it is gone"
    while alive := close_lost(store, experiment_id, sweep_id, gone, "KILLED", parts):
        if time.monotonic() > deadline - CLOSING_SECONDS / 2:
            for run in filter(_is_elsewhere, alive):
                close(store, run.info.run_id, gone)
            alive = [run for run in alive if not _is_elsewhere(run)]
        if alive and time.monotonic() > deadline:
            numbers = ", ".join(sorted({run.data.tags["process_id"] for run in alive}))
            raise TrackingError(f"runs of this sweep are still being trained by process {numbers}; stop it first")
        if on_wait:
            on_wait()
            on_wait = None
        time.sleep(0.2)


def close_lost(
    store: Store,
    experiment_id: str,
    sweep_id: str,
    reason: str,
    status: str,
    parts: Collection[str] | None = None,
    lost: str | None = None,
) -> list[Run]:
    """Closes the runs whose process on this machine is gone; returns those whose process is alive, or in a cluster.

    `lost` is the fingerprint of a run whose worker is known to be gone, wherever it was. `parts` are those that this
    process has for itself: runs of others are left alone, and runs of these that another machine has begun are closed
    too. Without any, it has the whole sweep.
    """
    alive = []
    for run in children(store, experiment_id, sweep_id, "RUNNING"):
        tags = run.data.tags
        part = tags.get("part")
        if parts is not None and part not in (None, *parts):
            continue
        elsewhere, of_cluster = processes.is_elsewhere(tags), "executor" in tags
        known = lost is not None and tags.get("run_fingerprint") == lost
        if known or processes.is_gone(tags) or (part and elsewhere):
            close(store, run.info.run_id, reason, status)
        elif not elsewhere or of_cluster:
            alive.append(run)
    return alive


def _is_elsewhere(run: Run) -> bool:
    return processes.is_elsewhere(run.data.tags)


def close(store: Store, run_id: str, reason: str, status: str = "KILLED") -> None:
    """Ends a run in the place of the process that should have."""
    store.client.set_tag(run_id, "failure", reason)
    store.client.set_terminated(run_id, status)
