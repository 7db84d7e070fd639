"""Run a sweep: every configuration of its spec with every seed, under one parent run; started again, it goes on."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.config.sweep import SweepConfig, load_spec
from cifar_mlflow.directories import writable
from cifar_mlflow.jobs.listener import say
from cifar_mlflow.jobs.sweeping import offline_part, parts, places
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.jobs.sweeping.places import ExecutorName, Place
from cifar_mlflow.jobs.sweeping.report import PartOutcome, SweepOutcome
from cifar_mlflow.jobs.sweeping.session import SweepSession
from cifar_mlflow.jobs.training.neighbours import Neighbours, place_of
from cifar_mlflow.tracking.reading import sweeps
from cifar_mlflow.tracking.store import Store, connect, environment_experiment
from cifar_mlflow.tracking.writing.recorder import mark_job
from cifar_mlflow.tracking.writing.system_metrics import enable


@process_state.preserved()
def sweep(
    spec: SweepConfig | str | Path,
    *,
    part: str | None = None,
    take_over: Sequence[int] = (),
    report: bool = False,
    offline: bool = False,
    wait: bool = False,
    system_metrics: bool = False,
    executor: ExecutorName = "process",
    ray_address: str | None = None,
) -> SweepOutcome | PartOutcome:
    """Runs the sweep, or what is left of it, and publishes its results on the parent run.

    Of a sweep that several processes share, this one runs `part` I/N and those that it is to `take_over`; the one that
    ends last publishes, and so does `report`, which trains nothing. A part may be run `offline`, without a store.
    `wait` begins when it is its turn among the trainings of this machine; `system_metrics` is as in `train`. With the
    `executor` ray, the nodes of the cluster at `ray_address` train (default: that which this machine is a node of).

    Raises:
        ConfigurationError: the spec has faults, or contradicts what was run under its name, with other data or another
            network than are here now; or it cannot be divided so.
        TrackingError: the store cannot be used, or the sweep, or a part, is being run elsewhere.
        TrainingError: all its runs failed.
        ModelError: there is nothing to report, or not all of it.
        KeyboardInterrupt: it was interrupted; all its runs are closed, and the same call goes on.
    """
    if not isinstance(spec, SweepConfig):
        spec = load_spec(spec)
    parts.refuse_together(part, take_over, report=report, offline=offline)
    given = {"part": part, "take-over": take_over, "report": report, "offline": offline, "wait": wait}
    places.refuse_together(executor, ray_address, [name for name, value in given.items() if value])
    neighbours = Neighbours(wait=wait, instead="let the spec have fewer workers")
    enable(system_metrics)
    store = None if offline else connect()
    experiment = _experiment(store, spec)
    if store and (part or take_over or report):
        mark_job(store)  # what `mlflow run` has made for each of these commands is not the sweep's parent
        store = replace(store, project_run_id=None)
    mine = None
    if part or take_over:
        found = sweeps.find_sweep(store, store.experiment_id(experiment), spec.name) if store and not part else None
        mine = parts.parse(part, take_over, found.parts if found else None, spec.name)
    if mine or report:
        parts.refuse_indivisible(spec, mine)
    with _only_one(store, experiment, spec.name, mine):
        begin: Callable[[Place], SweepOutcome | PartOutcome]
        if store is None:
            begin = functools.partial(offline_part.run, spec, experiment, mine=mine or Parts((1,), 1))
        else:
            session = SweepSession(spec, store, experiment, mine)
            if report:
                return session.report()
            begin = session.run
        with places.opened(spec, executor, ray_address) as place, ExitStack() as turn:
            if place.name == "process":
                needs = place_of(spec.base_config, spec.threads * places.workers(spec, place))
                turn.enter_context(neighbours.turn(f"sweep {spec.name}{f', {mine}' if mine else ''}", needs))
            return begin(place)


def _experiment(store: Store | None, spec: SweepConfig) -> str:
    """The experiment's name: under `mlflow run` that of the run that MLflow made."""
    if store and store.project_run_id:
        run = store.client.get_run(store.project_run_id)
        return str(store.client.get_experiment(run.info.experiment_id).name)
    return spec.experiment or environment_experiment(store) or spec.base_config.dataset_name


@contextmanager
def _only_one(store: Store | None, experiment: str, name: str, mine: Parts | None) -> Iterator[None]:
    """A second start of a running sweep, or of a part of one, waits, and then finds everything done."""
    from filelock import FileLock, Timeout

    where = store.uri if store else "offline"
    with ExitStack() as turns:
        for part in mine.names if mine else [""]:
            key = hashlib.sha256("\n".join(filter(None, [where, experiment, name, part])).encode()).hexdigest()[:16]
            lock = FileLock(writable("sweeps") / f"{key}.lock")
            try:
                turn = lock.acquire(timeout=0)
            except Timeout:
                what = f"part {part} of the sweep {name}" if part else f"the sweep {name}"
                say(f"{what} is being run by another process here; waiting for it to end")
                turn = lock.acquire()
            turns.enter_context(turn)
        yield
