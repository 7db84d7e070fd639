"""What in the store is not in order: each check yields what processes that are gone, or other hands, have left."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.records import Finding
from cifar_mlflow.tracking import processes, queries
from cifar_mlflow.tracking.outbox import log, state
from cifar_mlflow.tracking.reading import models, runs, sweeps
from cifar_mlflow.tracking.registry import aliases, lease, versions
from cifar_mlflow.tracking.store import LoggedModel, Run, Store, redact
from cifar_mlflow.tracking.writing import digests

LONG = 24 * 3600.0  # seconds after which a run of another machine is reported
SETTLED = 600.0  # seconds after which the process must be known that works on a run made by `mlflow run`
REASON = "the process that wrote it is gone (closed by cifar-mlflow doctor)"
FIX = "cifar-mlflow doctor --fix"


def _fixable(text: str, fix: Callable[..., str], *arguments: object) -> Finding:
    return Finding("warning", text, FIX, partial(fix, *arguments))


def left_running(store: Store) -> Iterator[Finding]:
    """Runs that say RUNNING, and whose process is gone or cannot be known."""
    kept = _spools_by_run()
    names = {experiment_id: name for name, experiment_id in runs.experiments(store).items()}
    for run in runs.search(store, names, "attributes.status = 'RUNNING'"):
        yield from _left_running(store, run, names[run.info.experiment_id], kept.get(run.info.run_id))


def _left_running(store: Store, run: Run, experiment: str, kept: state.Look | None) -> Iterator[Finding]:
    run_id, tags, started = run.info.run_id, run.data.tags, run.info.start_time / 1000
    age, close = time.time() - started, processes.CLOSE_COMMAND.format(run_id)
    who = f"{run.info.run_name}, {tags.get('kind', 'no kind')}, in {experiment}"
    what = f"run {run_id} ({who}) is RUNNING since {datetime.fromtimestamp(started, UTC):%Y-%m-%d %H:%M} UTC"
    made_here = "kind" in tags or any(name.startswith("mlflow.project.") for name in tags)
    if "host" in tags and processes.is_elsewhere(tags):
        if age > LONG:
            yield Finding("note", f"{what}, by {processes.describe(tags)}", f"if that process is gone: {close}")
    elif kept is not None or "process_id" in tags:
        if not (kept.busy if kept else processes.is_alive(tags)):
            number = tags.get("process_id")
            whose = f"process {number} of this machine, which" if number else "a process of this machine that"
            yield _fixable(f"{what}, by {whose} is gone", _close, store, run_id)
    elif made_here and age > SETTLED and not _in_an_environment(run_id):
        text = f"{what}; `mlflow run` made it, and its command never said where it runs"
        yield Finding("warning", text, f"if no process is at work on it: {close}")


def _in_an_environment(run_id: str) -> bool:
    """Whether a process of this machine, as far as they can be looked into, was started for the run."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("MLFLOW_RUN_ID") == run_id:
                return True
    return False


def _close(store: Store, run_id: str) -> str:
    run = store.client.get_run(run_id)
    if run.info.status != "RUNNING":
        return f"it is {run.info.status} by now"
    if run_id in _spools_by_run():
        raise TrackingError("its last writes could not be delivered, so it is left as it is")
    sweeps.close(store, run_id, REASON)
    return "closed as KILLED"


def _spools_by_run() -> dict[str, state.Look]:
    looks = map(state.look, log.outboxes(spool_directory()))
    return {look.run_id: look for look in looks if look.run_id}


def unwritable_artifacts(store: Store) -> Iterator[Finding]:
    """Experiments whose artifacts cannot be written from here; an error where writes of this machine wait for that."""
    looks = [look for look in map(state.look, log.outboxes(spool_directory())) if look.run_id and look.waiting]
    found = [queries.find(store.client.get_run, look.run_id) for look in looks if look.run_id]
    waiting = {run.info.experiment_id for run in found if run is not None}
    for experiment_id in sorted(waiting.union(runs.experiments(store).values())):
        try:
            queries.check_artifact_location(store, experiment_id)
        except TrackingError as error:
            yield Finding("error" if experiment_id in waiting else "note", str(error))


def incomplete_models(store: Store) -> Iterator[Finding]:
    """Models that were begun by a run that ended, or whose process is gone, and that never were logged completely."""
    experiment_ids = list(runs.experiments(store).values())
    # MLflow cannot search by status, so all models are read.
    found = queries.search_all(store.client.search_logged_models, experiment_ids) if experiment_ids else []
    for model in found:
        if str(model.status) == "PENDING" and "weights" in model.tags and _is_over(store, model):
            text = f"model {model.model_id} ({model.name}) of run {model.source_run_id} was begun and never completed"
            yield _fixable(text, _give_up, store, model.model_id)


def _is_over(store: Store, model: LoggedModel) -> bool:
    if not model.source_run_id:
        return False
    run = store.client.get_run(model.source_run_id)
    if run.info.status == "RUNNING":
        return processes.is_gone(run.data.tags)
    # A sync may be at work on the models of a run that is over.
    kept = _spools_by_run().get(run.info.run_id)
    return kept is None or not kept.busy


def _give_up(store: Store, model_id: str) -> str:
    from mlflow.entities import LoggedModelStatus

    model = store.client.get_logged_model(model_id)
    if str(model.status) != "PENDING":
        return f"it is {model.status} by now"
    if model.source_run_id in _spools_by_run():
        raise TrackingError("the writes of its run could not be delivered, so it is left as it is")
    store.client.finalize_logged_model(model_id, LoggedModelStatus.FAILED)
    return "marked as FAILED"


def misplaced_aliases(store: Store) -> Iterator[Finding]:
    """Aliases that are not where their record says, and tickets of processes that died at a registered model."""
    for model in versions.registered_models(store):
        name = model.name
        if left := lease.left_behind(store, name):
            text = f"registered model {name}: {', '.join(left)} left a ticket and is gone"
            yield _fixable(text, _clear, store, name)
        for alias in sorted({move.alias for move in aliases.moves(store, name)}):
            if told := aliases.faults(store, name, alias):
                yield _fixable(f"registered model {name}: {'; '.join(told)}", _repair, store, name, alias)


def _clear(store: Store, name: str) -> str:
    lease.clear(store, name)
    return "removed"


def _repair(store: Store, name: str, alias: str) -> str:
    with lease.lease(store, name):
        aliases.repair(store, name, alias)
        version = aliases.holder(store, name, alias)
    return f"put right: {alias} is {f'version {version}' if version else 'no version'}, and the record says so"


def changed_model_files(store: Store) -> Iterator[Finding]:
    """Models that an alias names, and whose files are gone or are not those that were logged."""
    for model in versions.registered_models(store):
        for alias, version in sorted(model.aliases.items()):
            uri = f"models:/{model.name}@{alias}"
            try:
                found = models.find_loadable(store, uri)
                if digests.TAG not in found.tags:
                    continue
                with tempfile.TemporaryDirectory() as directory:
                    told = digests.differences(models.download(found.uri, Path(directory)), found.tags) or []
            except ModelError as error:
                told = [redact(str(error))]
            if told:
                more = f" and {len(told) - 5} more" if len(told) > 5 else ""
                text = f"{uri} (version {version}) is not what was logged: {', '.join(told[:5])}{more}"
                remedy = f"put the files back from a copy, or promote another model: cifar-mlflow history {model.name}"
                yield Finding("error", text, remedy)
