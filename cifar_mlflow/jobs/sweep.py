"""Run a sweep: every configuration of its spec with every seed, under one parent run; started again, it goes on."""

import functools
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.analysis.comparison.verdicts import CHOSEN_BY_SEED, Comparison
from cifar_mlflow.config.sweep import OBJECTIVES, SweepConfig, changes, load_spec
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import state_directory, writable
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError, TrackingError, TrainingError
from cifar_mlflow.jobs import sync
from cifar_mlflow.jobs.listener import SweepListener, current_listener, say, warn
from cifar_mlflow.jobs.sweeping import earlier, trial
from cifar_mlflow.jobs.sweeping import estimate as sweep_estimate
from cifar_mlflow.jobs.sweeping import report as sweep_report
from cifar_mlflow.jobs.sweeping.plan import Plan, PlannedRun, describe
from cifar_mlflow.jobs.sweeping.report import Winner
from cifar_mlflow.jobs.training.neighbours import Neighbours, place_of
from cifar_mlflow.records import RunRecord, TrialOutcome
from cifar_mlflow.text import as_option
from cifar_mlflow.tracking.reading import runs, sweeps
from cifar_mlflow.tracking.store import Store, connect, environment_experiment
from cifar_mlflow.tracking.writing import ui_views
from cifar_mlflow.tracking.writing.system_metrics import enable
from cifar_mlflow.tuning.executors import Event, ProcessExecutor
from cifar_mlflow.tuning.study import TuningStudy

STORE_TIMEOUT = 60.0  # seconds for a tracking store that went away to come back, at the end of a sweep


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep came to: its runs so far, how many of them failed or were pruned, how many a budget has left."""

    run_id: str
    leaderboard: str
    experiment: str
    runs: int
    failed: int
    pruned: int
    left: int
    comparison: Comparison
    winner: Winner | None


@process_state.preserved()
def sweep(spec: SweepConfig | str | Path, *, wait: bool = False, system_metrics: bool = False) -> SweepOutcome:
    """Runs the sweep, or what is left of it, and publishes its results on the parent run.

    `wait` begins when it is its turn among the trainings of this machine; `system_metrics` is as in `train`.

    Raises:
        ConfigurationError: the spec has faults, or contradicts what was run under its name, with other data or another
            network than are here now.
        TrackingError: the store cannot be used, or the sweep is being run elsewhere.
        TrainingError: all its runs failed.
        KeyboardInterrupt: it was interrupted; all its runs are closed, and the same call goes on.
    """
    if not isinstance(spec, SweepConfig):
        spec = load_spec(spec)
    neighbours = Neighbours(wait=wait, instead="let the spec have fewer workers")
    enable(system_metrics)
    store = connect()
    experiment = _experiment(store, spec)
    with _only_one(store, experiment, spec.name):
        begun = _Sweep(spec, store, experiment)
        place = place_of(spec.base_config, spec.threads * sweep_estimate.most_workers(spec))
        with neighbours.turn(f"sweep {spec.name}", place):
            return begun.run()


class _Sweep:
    """One start of a sweep, from the look at what is there to the report."""

    def __init__(self, spec: SweepConfig, store: Store, experiment: str) -> None:
        self._spec, self._store, self._experiment = spec, store, experiment
        self._digests = functools.cache(trial.digests)
        experiment_id = store.experiment_id(experiment)
        self._earlier = sweeps.find_sweep(store, experiment_id, spec.name)
        if self._earlier and self._earlier.spec is not None and (told := changes(self._earlier.spec, spec)):
            raise ConfigurationError(
                [*told, "a sweep can only be added to; give the changed one another name"],
                f"sweep {spec.name}, which was run before",
            )
        # The data are read before anything is written: no run is made for a dataset that is not there.
        trial.forget_dataset()
        self._fingerprint(spec.base_config)
        if before := self._earlier:
            sync.deliver(store, lambda tags: tags.get("sweep_id") == before.sweep_id)
            found = sweeps.children(store, experiment_id, before.sweep_id)
            earlier.refuse_changed(spec, runs.to_records(store, found), self._digests)

    def run(self) -> SweepOutcome:
        """Takes the sweep to its end, or to that of its budget, and leaves nothing RUNNING."""
        parent, self._id = sweeps.start_parent(self._store, self._experiment, self._spec.name, self._earlier)
        self._parent, self._directory = parent, state_directory() / "sweeps" / self._id
        status = "FAILED"
        try:
            parent.log_files({sweeps.SPEC_FILE: self._spec.as_yaml().encode()})
            self._deliver(STORE_TIMEOUT)
            waiting = "waiting for the workers of an earlier start to close their runs"
            sweeps.close_abandoned(self._store, parent.experiment_id, self._id, lambda: say(waiting))
            # A worker of an earlier start may only now have ended, with a finished run that is not yet in the store.
            self._deliver(STORE_TIMEOUT, busy_too=True)
            study = TuningStudy(self._spec, self._directory / "journal.log")
            plan = Plan(self._spec, study, self._fingerprint, self._records())
            say(f"watch it: {self._publish_views()}")
            complete = self._train(plan)
            self._deliver(STORE_TIMEOUT)
            outcome = self._publish(plan, study, complete)
            status = "FINISHED"
            return outcome
        except KeyboardInterrupt:
            status = "KILLED"
            say("interrupted; the finished runs are kept. The same command goes on from here")
            raise
        finally:
            # What ended the sweep is what the user must hear of, even if the store cannot be told any more.
            with suppress(CifarMlflowError):
                if status != "FINISHED":
                    sweeps.close_abandoned(self._store, parent.experiment_id, self._id)
                parent.finish(status)

    def _deliver(self, timeout: float, *, busy_too: bool = False) -> None:
        """Delivers what the workers could not, trying for `timeout` seconds.

        `busy_too` waits for workers that are still writing as well.

        Raises:
            TrackingError: the store still cannot be reached, or a worker does not end; all is kept on disk.
        """
        until = time.monotonic() + timeout
        while True:
            outcome = sync.deliver(self._store, lambda tags: tags.get("sweep_id") == self._id)
            busy = outcome.busy if busy_too else []
            left = outcome.waiting | dict.fromkeys(busy, "still being written by its own process")
            if not left:
                return
            if time.monotonic() > until:
                first = ": ".join(next(iter(left.items())))
                wait = f"{len(left)} runs of the sweep wait on disk for the tracking store ({first})"
                raise TrackingError(f"{wait}; the same command goes on from here")
            time.sleep(1.0)

    def _fingerprint(self, config: TrainingConfig) -> str:
        return config.run_fingerprint(*self._digests(trial.data_settings(config), config.network))

    def _records(self, *metrics: str) -> list[RunRecord]:
        """The sweep's runs, each of them once, with the values by epoch of `metrics`."""
        found = sweeps.children(self._store, self._parent.experiment_id, self._id)
        return runs.without_superseded(runs.to_records(self._store, found, metrics))

    def _train(self, plan: Plan) -> bool:
        """Trains what is to be trained; False if the budget ended it."""
        spec = self._spec
        estimate = sweep_estimate.estimate(spec, plan)
        warnings = sweep_estimate.warnings(spec)
        trial.forget_dataset()
        say(estimate.text)
        for text in warnings:
            warn(text)
        if not estimate.left:
            return not plan.has_next()
        task = functools.partial(trial.run_trial, spec, self._experiment)
        begin, log = functools.partial(trial.prepare, spec), self._directory / "workers.log"
        with (
            current_listener().sweep(spec, estimate.left, estimate.epochs) as progress,
            ProcessExecutor(estimate.workers, spec.threads, task, begin, log, trial.needed(spec)) as executor,
        ):
            for values, outcome in plan.known:
                progress.known(values, outcome.value)
            return self._loop(plan, executor, progress)

    def _loop(self, plan: Plan, executor: ProcessExecutor, progress: SweepListener) -> bool:
        """Keeps the workers busy until no run is left; False if the budget ended it."""
        started = time.monotonic()
        running: dict[str, PlannedRun] = {}
        while True:
            while (within := self._within_budget(plan, started)) and executor.idle and (planned := plan.next()):
                running[planned.fingerprint] = planned
                executor.submit(planned.fingerprint, self._trial_run(planned))
            if not running:
                return within
            for event in executor.events(timeout=1.0):
                planned = running[event.task_id]
                if event.kind == "event":
                    progress.epoch()
                    executor.answer(event, plan.report(planned, *event.payload))
                else:
                    del running[event.task_id]
                    self._end(plan, progress, planned, event)

    def _within_budget(self, plan: Plan, started: float) -> bool:
        budget = self._spec.budget
        late = budget.minutes is not None and time.monotonic() - started > 60 * budget.minutes
        return not late and (budget.runs is None or plan.handed_out < budget.runs)

    def _end(self, plan: Plan, progress: SweepListener, planned: PlannedRun, event: Event) -> None:
        """Takes the end of a run, whichever it was."""
        what = f"{describe(planned.trial.values)}, seed {planned.config.seed}"
        outcome = event.payload if event.kind == "done" else TrialOutcome("FAILED", reason=event.payload)
        if event.kind == "lost":
            with suppress(CifarMlflowError):  # the worker may have been killed when its run had just ended
                self._deliver(0)
            recorded = plan.recorded(planned, self._records())
            again = recorded is None and plan.lost(planned)
            status = "KILLED" if again else "FAILED"
            sweeps.close_lost(self._store, self._parent.experiment_id, self._id, event.payload, status)
            if again:
                warn(f"{what}: {event.payload}; it is tried once more")
                return
            outcome = recorded or outcome
        plan.finish(planned, outcome)
        progress.run(planned.trial.values, what, outcome)

    def _trial_run(self, planned: PlannedRun) -> trial.TrialRun:
        tags = {
            "kind": "trial",
            "mlflow.parentRunId": self._parent.run_id,
            "sweep": self._spec.name,
            "sweep_id": self._id,
            "trial": str(planned.trial.number),
            "run_fingerprint": planned.fingerprint,
            **({CHOSEN_BY_SEED: "true"} if planned.prunable else {}),
        }
        values = " ".join(map(as_option, planned.trial.values.values()))
        name = f"{planned.trial.number:03d} {values} seed {planned.config.seed}"
        return trial.TrialRun(planned.config, name[:250], tags)

    def _publish_views(self) -> str:
        """Saves the views of the sweep in MLflow's UI; returns what opens the leaderboard."""
        experiment_id, spec = self._parent.experiment_id, self._spec
        saved = ui_views.publish_views(
            self._store, experiment_id, list(spec.space), sweep=spec.name, trains_on_all=spec.is_replication
        )
        link = ui_views.view_url(self._store, experiment_id, next(iter(saved.values())))
        return link if self._parent.url else f"cifar-mlflow ui, then {link}"

    def _publish(self, plan: Plan, study: TuningStudy, complete: bool) -> SweepOutcome:
        spec, outcomes = self._spec, list(plan.outcomes.values())
        failed = [outcome for outcome in outcomes if outcome.status == "FAILED"]
        importances = {} if spec.is_replication else study.importances()
        records = self._records("epoch_test_accuracy" if spec.is_replication else OBJECTIVES[spec.objective][0])
        compared, winner = sweep_report.publish(self._parent, spec, records, importances)
        if outcomes and len(failed) == len(outcomes):
            raise TrainingError(f"all {len(failed)} runs of the sweep failed; the first: {failed[0].reason}")
        return SweepOutcome(
            self._parent.run_id,
            self._publish_views(),
            self._experiment,
            len(outcomes),
            len(failed),
            sum(outcome.status == "PRUNED" for outcome in outcomes),
            0 if complete else plan.runs - len(outcomes),
            compared,
            winner,
        )


def _experiment(store: Store, spec: SweepConfig) -> str:
    """The experiment's name: under `mlflow run` that of the run that MLflow made."""
    if store.project_run_id:
        run = store.client.get_run(store.project_run_id)
        return str(store.client.get_experiment(run.info.experiment_id).name)
    return spec.experiment or environment_experiment(store) or Path(spec.base_config.dataset).stem


@contextmanager
def _only_one(store: Store, experiment: str, name: str) -> Iterator[None]:
    """A second start of a running sweep waits, and then finds everything done."""
    from filelock import FileLock, Timeout

    key = hashlib.sha256(f"{store.uri}\n{experiment}\n{name}".encode()).hexdigest()[:16]
    lock = FileLock(writable("sweeps") / f"{key}.lock")
    try:
        turn = lock.acquire(timeout=0)
    except Timeout:
        say(f"the sweep {name} is being run by another process here; waiting for it to end")
        turn = lock.acquire()
    with turn:
        yield
