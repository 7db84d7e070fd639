"""What is not in order on this machine; each check yields what it finds. Without a store, no server is asked."""

import platform
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path

import cifar_mlflow
from cifar_mlflow.directories import STATE_VARIABLE, cache_directory, spool_directory, state_directory
from cifar_mlflow.errors import ConfigurationError, ModelError, TrackingError
from cifar_mlflow.jobs import sync
from cifar_mlflow.records import Finding
from cifar_mlflow.text import count
from cifar_mlflow.tracking import processes, uris
from cifar_mlflow.tracking.outbox import locks, log
from cifar_mlflow.tracking.outbox import state as outbox_state
from cifar_mlflow.tracking.reading import runs
from cifar_mlflow.tracking.reading.leftovers import FIX
from cifar_mlflow.tracking.store import Store

LITTLE_ROOM = 1e9  # bytes
PROJECT = Path(cifar_mlflow.__file__).parent.parent / "pyproject.toml"
TRIAL = re.compile(r"(.+)\.[0-9a-f]{16}")  # the name of a trial's checkpoints: that of its sweep, and its own


def outboxes(store: Store | None) -> Iterator[Finding]:
    """Writes that wait for the store, and what else is left in the directory of the outboxes."""
    parent, empty = spool_directory(), _empty_outboxes()
    for directory in log.outboxes(parent):
        look = outbox_state.look(directory)
        if look.busy or directory in empty:
            continue
        if look.fault:
            text = f"{directory} cannot be read ({look.fault}); what it holds is left as it is"
            yield Finding("error", text, f"put outbox.sqlite back from a copy; if it is of no use: rm -r {directory}")
            continue
        tried = look.waiting - len(look.refused)
        since = f"{datetime.fromtimestamp(look.since, UTC):%Y-%m-%d %H:%M} UTC"
        told = [f"{count(tried, 'write')} waiting since {since}"] if tried else []
        if look.refused:
            told.append(f"the store refuses {count(len(look.refused), 'write')}, kept here ({look.refused[0]})")
        text = f"run {look.name} ({look.run_id or 'in no store yet'}): "
        text += "; ".join(told) or "all its writes have arrived, and its outbox is still there"
        text += f", for {look.store}" if look.store and look.waiting else ""
        text += f", {megabytes(outbox_state.size_of(directory))} in {directory}"
        text += f"; {count(look.damaged, 'damaged record')} lost, whatever is done" if look.damaged else ""
        remedy = "cifar-mlflow sync" + (f"; if what is refused is of no use: rm -r {directory}" if look.refused else "")
        yield Finding("warning", text, remedy, partial(_deliver, store, directory) if store else None)
    for directory in empty:
        text = f"{directory}: an outbox without any record, of a process that was killed as it began"
        yield Finding("warning", text, FIX, partial(_remove, directory, lambda path: path not in _empty_outboxes()))
    for path in sorted(parent.glob("*.damaged")):
        text = f"{path}: {path.stat().st_size} bytes of records that could not be read and are lost"
        yield Finding("note", text, f"if they are of no use: rm {path}")


def _empty_outboxes() -> list[Path]:
    return [path for path in outbox_state.remains(spool_directory()) if not outbox_state.is_busy(path)]


def _deliver(store: Store, directory: Path) -> str:
    outcome = sync.SyncOutcome()
    if directory.exists():
        sync.deliver_one(store, directory, outcome)
    for reason in outcome.waiting.values():
        raise TrackingError(reason)
    for reasons in outcome.refused.values():
        raise TrackingError(f"the store refuses, and it is kept: {'; '.join(reasons)}")
    return "another process delivers it by now" if outcome.busy else "delivered"


def _remove(path: Path, in_use: Callable[[Path], bool]) -> str:
    if in_use(path):
        return "it is in use by now"
    shutil.rmtree(path)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return "removed"


def checkpoints(store: Store | None) -> Iterator[Finding]:
    """Checkpoints of runs that nobody trains: those that can be resumed, and those that are of no more use."""
    for directory in sorted((state_directory() / "checkpoints").glob("*/")):
        if (trial := TRIAL.fullmatch(directory.name)) and not _in_training(directory):
            text = f"{directory} is of a trial of the sweep {trial[1]}, which goes on from it when it is started again"
            yield Finding("note", text, f"start it again; or, if it is of no use: rm -r {directory}")
        if store is None or not runs.RUN_ID.fullmatch(directory.name) or _in_training(directory):
            continue
        what = f"{directory} ({megabytes(outbox_state.size_of(directory))})"
        try:
            run = runs.find(store, directory.name)
        except ModelError:
            text = f"{what} is of a run that this store does not know"
            yield Finding("note", text, f"if no other does: rm -r {directory}")
            continue
        if run.info.lifecycle_stage == "deleted":
            yield Finding("note", f"{what} is of a run that was deleted", f"rm -r {directory}")
        elif run.info.status == "FINISHED":
            text = f"{what} is of a run that is finished ({run.info.run_name})"
            yield Finding("warning", text, FIX, partial(_remove, directory, _in_training))
        elif processes.is_gone(run.data.tags):
            text = f"run {directory.name} ({run.info.run_name}) broke off, and can go on from its last checkpoint"
            yield Finding("note", text, f"cifar-mlflow train --resume {directory.name}")


def _in_training(directory: Path) -> bool:
    return locks.is_locked(directory.with_name(f"{directory.name}.lock"))


def leftovers() -> Iterator[Finding]:
    """Files of ours that were being written when their process was killed, in directories that are ours alone."""
    cache, saved = cache_directory(), state_directory() / "checkpoints"
    found = [path for path in saved.glob("*/.*.part") if not _in_training(path.parent)]
    partial_ones = [*cache.glob("*.partial"), *cache.glob("images/*.partial")]
    found += [path for path in partial_ones if not locks.is_locked(path.with_suffix(".lock"))]
    for path in sorted(found):
        size = sum(file.stat().st_size for file in (path, *path.rglob("*")))
        text = f"{path.absolute()}: {megabytes(size)} that a killed process had begun to write"
        yield Finding("warning", text, FIX, partial(_remove_file, path))


def _remove_file(path: Path) -> str:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return "removed"


def room(store: Store | None) -> Iterator[Finding]:
    """Directories that cannot be written, or with little room left on their disk."""
    state = state_directory()
    places = {f"the state directory (${STATE_VARIABLE})": state, "the cache": cache_directory()}
    if store is not None and (file := uris.sqlite_file(store.uri)):
        places["the store"] = file.parent
    told: set[int] = set()
    for what, path in places.items():
        existing = next(each for each in (path, *path.parents) if each.exists())
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            remedy = f"give yourself the right to write to {existing}, or choose another directory"
            yield Finding("error", f"{what}, {path}, cannot be written ({error.strerror or error})", remedy)
        free, disk = shutil.disk_usage(existing).free, existing.stat().st_dev
        if free < LITTLE_ROOM and disk not in told:
            told.add(disk)
            largest = _largest([state / name for name in ("checkpoints", "spool", "sweeps")], *places.values())
            text = f"{what}, {path}, has {megabytes(free)} of room left; the most is taken by {largest}"
            yield Finding("warning", text, "make room there: at least 1 GB")


def _largest(parts: list[Path], *places: Path) -> str:
    inside = [each for place in places if place.is_dir() for each in place.iterdir() if each not in parts]
    ours = [each for each in inside if each.name in ("mlflow.db", "mlruns", "mlartifacts") or "cifar" in each.name]
    sizes = {path: outbox_state.size_of(path) for path in (*parts, *ours) if path.exists()}
    largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
    return ", ".join(f"{path} ({megabytes(sizes[path])})" for path in largest) or "nothing of ours"


def compiled_functions() -> Iterator[Finding]:
    """Those that come with the package: none were compiled, or they cannot be used, so that training takes longer."""
    from cifar_mlflow.learning.compiled import bindings

    again = "install the package again, where there is a C compiler with OpenMP, such as gcc"
    without = "the package was installed without a C compiler; torch's own functions train, which takes longer"
    if fault := bindings.fault():
        yield Finding("warning", fault, again)
    elif bindings.library_path() is None:
        yield Finding("note", without, again)


def packages() -> Iterator[Finding]:
    """Packages, and Python, of a version that this one was not made for."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    python, listed = _asked_for()
    if not SpecifierSet(python).contains(platform.python_version(), prereleases=True):
        text = f"this is Python {platform.python_version()}; asked for is {python}"
        yield Finding("error", text, "make a new environment with that Python")
    for requirement in map(Requirement, listed):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = requirement.name, f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(name)
            found = None if requirement.specifier.contains(version, prereleases=True) else f"{version} is installed"
        except metadata.PackageNotFoundError:
            found = "is not installed"
        if found:
            yield Finding("error", f"{name} {found}; asked for is {wanted}", f"pip install '{wanted}'")


def _asked_for() -> tuple[str, list[str]]:
    """The versions of Python and the packages that are asked for: by the checkout, or by what was installed."""
    if PROJECT.is_file():
        project = tomllib.loads(PROJECT.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == "cifar-mlflow":
            return project["requires-python"], project["dependencies"]
    try:
        installed = metadata.metadata("cifar-mlflow")
        return str(installed["Requires-Python"] or ""), metadata.requires("cifar-mlflow") or []
    except metadata.PackageNotFoundError:
        raise ConfigurationError("neither pyproject.toml nor an installed cifar-mlflow says what it needs") from None


def megabytes(size: int) -> str:
    """1.5 MB; 0.0 MB is less than 50 kB."""
    return f"{size / 1e6:,.1f} MB"
