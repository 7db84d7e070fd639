"""Trains what a plan hands out, in worker processes: the one place that decides what runs next and what comes of it."""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cifar_mlflow.analysis.comparison.verdicts import CHOSEN_BY_SEED
from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.jobs.listener import SweepListener, current_listener, say, warn
from cifar_mlflow.jobs.sweeping import estimate as sweep_estimate
from cifar_mlflow.jobs.sweeping import trial, worker
from cifar_mlflow.jobs.sweeping.estimate import Estimate
from cifar_mlflow.jobs.sweeping.places import Place
from cifar_mlflow.jobs.sweeping.plan import Plan, PlannedRun, describe
from cifar_mlflow.jobs.sweeping.worker import Sample
from cifar_mlflow.records import RunRecord, TrialOutcome
from cifar_mlflow.text import as_option
from cifar_mlflow.tuning.executors import Event, Executor

SAMPLE = "the sample"  # the id of its task: no fingerprint


class Home(Protocol):
    """Where the runs of a sweep are recorded, as the driver needs it."""

    def renew(self) -> None:
        """Called every second or so; what it raises ends the sweep."""

    def recorded(self) -> list[RunRecord]:
        """The runs, as far as they have arrived."""

    def close_lost(self, reason: str, status: str, lost: PlannedRun) -> None:
        """Closes the run whose worker is gone, and others whose process is seen to be gone."""

    def ended(self, planned: PlannedRun, outcome: TrialOutcome) -> None:
        """A run has come to its end."""


class Driver:
    """Trains into runs of `experiment` with `tags`; what the workers print goes to the file `log`."""

    def __init__(
        self,
        spec: SweepConfig,
        experiment: str,
        tags: Mapping[str, str],
        log: Path,
        home: Home,
        place: Place,
        *,
        offline: bool,
    ) -> None:
        self._spec, self._experiment, self._tags, self._log = spec, experiment, tags, log
        self._home, self._place, self._offline = home, place, offline

    def train(self, plan: Plan) -> bool:
        """Trains what is to be trained; False if the budget ended it."""
        spec = self._spec
        expected = None if self._place.name == "process" else self._expected()
        estimate = sweep_estimate.estimate(spec, plan, self._place)
        warnings = sweep_estimate.warnings(spec)
        trial.forget()
        say(estimate.text)
        for text in warnings:
            warn(text)
        if not estimate.left:
            return not plan.has_next()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        elsewhere = self._place.name != "process"
        task = functools.partial(worker.work, spec, self._experiment, offline=self._offline, elsewhere=elsewhere)
        begin = functools.partial(trial.prepare, spec, offline=self._offline, expected=expected)
        preload = [worker.__name__, *trial.needed(spec)]
        with (
            current_listener().sweep(spec, estimate.left, estimate.epochs) as progress,
            self._place.executor(spec, estimate.workers, task, begin, self._log, preload) as executor,
        ):
            if not self._place.measured_here:
                self._measure(executor, estimate)
            for values, outcome in plan.known:
                progress.known(values, outcome.value, outcome.images)
            return self._loop(plan, executor, progress)

    def _expected(self) -> trial.Expected:
        """What a worker on another machine must find there."""
        digests = trial.digests(trial.settings(self._spec.base_config))
        return trial.Expected(self._tags["mlflow.parentRunId"], self._tags["sweep_id"], digests)

    def _measure(self, executor: Executor, estimate: Estimate) -> None:
        """Has a worker measure how fast it trains, and says how long it will take; a fault is told by the trials."""
        executor.submit(SAMPLE, Sample())
        while True:
            for event in executor.events(timeout=1.0):
                if event.kind == "done":
                    say(sweep_estimate.duration_of(self._spec, estimate, event.payload))
                return

    def _loop(self, plan: Plan, executor: Executor, progress: SweepListener) -> bool:
        """Keeps the workers busy until no run is left; False if the budget ended it."""
        started = time.monotonic()
        running: dict[str, PlannedRun] = {}
        while True:
            while (within := self._within_budget(plan, started)) and executor.idle and (planned := plan.next()):
                running[planned.fingerprint] = planned
                executor.submit(planned.fingerprint, self._trial_run(plan, planned))
            if not running:
                return within
            self._home.renew()
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
            # The worker may have been killed when its run had just ended.
            recorded = plan.recorded(planned, self._home.recorded())
            again = recorded is None and plan.lost(planned)
            self._home.close_lost(event.payload, "KILLED" if again else "FAILED", planned)
            if again:
                warn(f"{what}: {event.payload}; it is tried once more")
                return
            outcome = recorded or outcome
        plan.finish(planned, outcome)
        self._home.ended(planned, outcome)
        progress.run(planned.trial.values, what, outcome)

    def _trial_run(self, plan: Plan, planned: PlannedRun) -> trial.TrialRun:
        part = plan.part_of(planned)
        tags = {
            "kind": "trial",
            "sweep": self._spec.name,
            **self._tags,
            "trial": str(planned.trial.number),
            "run_fingerprint": planned.fingerprint,
            **({CHOSEN_BY_SEED: "true"} if planned.prunable else {}),
            **({"part": part} if part else {}),
            **({} if self._place.name == "process" else {"executor": self._place.name}),
        }
        values = " ".join(map(as_option, planned.trial.values.values()))
        name = f"{planned.trial.number:03d} {values} seed {planned.config.seed}"
        return trial.TrialRun(planned.config, name[:250], tags)
