"""One start of a sweep, or of parts of one, from the look at what is there to the report."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from cifar_mlflow.config.sweep import OBJECTIVES, SweepConfig, changes
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import state_directory
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError, ModelError, TrackingError, TrainingError
from cifar_mlflow.jobs import sync
from cifar_mlflow.jobs.listener import say, warn
from cifar_mlflow.jobs.sweeping import earlier, trial
from cifar_mlflow.jobs.sweeping import report as sweep_report
from cifar_mlflow.jobs.sweeping.driver import Driver
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.jobs.sweeping.plan import Plan, PlannedRun
from cifar_mlflow.jobs.sweeping.report import PartOutcome, SweepOutcome
from cifar_mlflow.jobs.training import signals
from cifar_mlflow.records import RunRecord, TrialOutcome
from cifar_mlflow.text import count, redact
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import claims, runs, sweeps
from cifar_mlflow.tracking.registry.lease import sweeps_lease
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import ui_views
from cifar_mlflow.tuning.study import TuningStudy

STORE_TIMEOUT = 60.0  # seconds for a tracking store that went away to come back, at the end of a sweep


class SweepSession:
    """Runs the sweep, or the parts `mine` of it; it is the driver's `Home`. Raises as `jobs.sweep.sweep`."""

    def __init__(self, spec: SweepConfig, store: Store, experiment: str, mine: Parts | None) -> None:
        self._spec, self._store, self._experiment, self._parts = spec, store, experiment, mine
        self._names = mine.names if mine else None
        self._digests = functools.cache(trial.digests)
        self._experiment_id, self._id = store.experiment_id(experiment), ""
        self._begun = False
        self._claims: claims.Claims | None = None
        self._look()
        # The data are read before anything is written: no run is made for a dataset that is not there.
        trial.forget()
        self._fingerprint(spec.base_config)
        if self._earlier:
            sync.deliver(store, self._is_ours)
            found = sweeps.children(store, self._experiment_id, self._id)
            earlier.refuse_changed(spec, runs.to_records(store, found), self._digests)

    def _look(self) -> None:
        """Looks for an earlier start, and refuses to change what that was of."""
        self._earlier = sweeps.find_sweep(self._store, self._experiment_id, self._spec.name)
        if self._earlier is None:
            return
        self._id = self._earlier.sweep_id
        if self._earlier.spec is not None and (told := changes(self._earlier.spec, self._spec)):
            raise ConfigurationError(
                [*told, "a sweep can only be added to; give the changed one another name"],
                f"sweep {self._spec.name}, which was run before",
            )

    def _begin(self, divided: int | None) -> None:
        """Makes the parent, or opens it again; of processes that do so at the same moment, one makes it."""
        store, spec = self._store, self._spec
        with signals.held_back(), sweeps_lease(store, self._experiment_id, say):
            self._look()
            self._parent, self._id = sweeps.start_parent(store, self._experiment, spec.name, self._earlier, divided)
            self._begun = True
            self._parent.log_files({sweeps.SPEC_FILE: spec.as_yaml().encode()})
        if self._parts:
            numbers, of = self._parts.numbers, self._parts.of
            self._claims = claims.Claims(store, self._experiment_id, self._parent.run_id, numbers, of)

    def run(self) -> SweepOutcome | PartOutcome:
        """Takes the sweep, or the parts, to the end, or to that of the budget, and leaves nothing RUNNING."""
        mine = self._parts
        status = "FAILED"
        try:
            self._begin(mine.of if mine else None)
            directory = state_directory() / "sweeps" / self._id
            if self._claims:
                self._claims.take(say)
            self._deliver(STORE_TIMEOUT)
            self._close_abandoned(say)
            # A worker of an earlier start may only now have ended, with a finished run that is not yet in the store.
            self._deliver(STORE_TIMEOUT, busy_too=True)
            self._take_in()
            study = TuningStudy(self._spec, None if mine else directory / "journal.log")
            plan = Plan(self._spec, study, self._fingerprint, self._records(), mine)
            say(f"watch it: {self._publish_views()}")
            tags = {"mlflow.parentRunId": self._parent.run_id, "sweep_id": self._id}
            log = directory / f"workers{''.join(f'-{number}' for number in mine.numbers) if mine else ''}.log"
            complete = Driver(self._spec, self._experiment, tags, log, self, offline=False).train(plan)
            self._deliver(STORE_TIMEOUT)
            outcome = self._end_parts(plan, mine) if mine else self._publish(plan, study, complete)
            status = "SCHEDULED" if isinstance(outcome, PartOutcome) else "FINISHED"
            return outcome
        except KeyboardInterrupt:
            status = "KILLED"
            say("interrupted; the finished runs are kept. The same command goes on from here")
            raise
        finally:
            # What ended the sweep is what the user must hear of, even if the store cannot be told any more.
            with suppress(CifarMlflowError):
                if status in ("FAILED", "KILLED") and self._begun:
                    self._close_abandoned()
                self._leave(status)

    def report(self) -> SweepOutcome:
        """Publishes what the parts have come to, once all is there."""
        name, where = self._spec.name, redact(self._store.uri)
        if not self._earlier and not sweeps.offline_trials(self._store, self._experiment_id, name):
            raise ModelError(f"there is no sweep {name!r} in the experiment {self._experiment!r} of {where}")
        status = "SCHEDULED"
        try:
            self._begin(self._earlier.parts if self._earlier else None)
            self._deliver(STORE_TIMEOUT)
            self._take_in()
            plan, study, missing = self._whole()
            if missing:
                lacking = ", ".join(self._lacking(plan, missing, claims.running(self._tags())))
                raise ModelError(f"the sweep {name} is not complete: {lacking} not done yet")
            outcome = self._publish_complete(plan, study)
            status = "FINISHED"
            return outcome
        finally:
            with suppress(CifarMlflowError):
                self._leave(status)

    def _end_parts(self, plan: Plan, mine: Parts) -> SweepOutcome | PartOutcome:
        assert self._claims is not None
        others = self._claims.release()
        # Whoever is released last finds what all others have delivered before.
        whole, study, missing = self._whole()
        if not missing and not others:
            return self._publish_complete(whole, study)
        ended = plan.own_outcomes
        failed = [each for each in ended if each.status == "FAILED"]
        if ended and len(failed) == len(ended):
            raise TrainingError(f"all {len(failed)} runs of {mine} failed; the first: {failed[0].reason}")
        lacks = tuple(self._lacking(whole, missing, others))
        return PartOutcome(mine, self._experiment, len(ended), len(failed), self._parent.run_id, lacks)

    def _whole(self) -> tuple[Plan, TuningStudy, list[PlannedRun]]:
        """The plan of all parts, as far as the store has outcomes, its study, and the runs without any."""
        records, study = self._records(), TuningStudy(self._spec, None)
        earlier.refuse_changed(self._spec, records, self._digests)
        plan = Plan(self._spec, study, self._fingerprint, records, self._everything())
        failed = {each.tags["run_fingerprint"]: each for each in records if each.status == "FAILED"}
        missing = []
        while planned := plan.next():
            if record := failed.get(planned.fingerprint):  # for a reason for which it is tried again, if asked for
                plan.finish(planned, TrialOutcome("FAILED", reason=record.tags.get("failure", "")))
            else:
                missing.append(planned)
        return plan, study, missing

    def _everything(self) -> Parts:
        of = self._parts.of if self._parts else (self._earlier.parts if self._earlier else None) or 1
        return Parts(tuple(range(1, of + 1)), of)

    def _lacking(self, plan: Plan, missing: list[PlannedRun], at_work: Mapping[int, Mapping[str, str]]) -> list[str]:
        """The runs that are missing, by part, each with who is at work on it."""
        lacking, everything = Counter(map(plan.part_of, missing)), self._everything()
        return [
            f"{count(lacking[name], 'run')} of part {name}"
            + (f" ({processes.describe(at_work[number])})" if number in at_work else "")
            for number, name in zip(everything.numbers, everything.names, strict=True)
            if name in lacking
        ]

    def _publish_complete(self, plan: Plan, study: TuningStudy) -> SweepOutcome:
        # What broke off, on whatever machine, was repeated.
        everything, why = self._everything().names, "it was repeated"
        sweeps.close_lost(self._store, self._experiment_id, self._id, why, "KILLED", everything)
        return self._publish(plan, study, True)

    def _leave(self, status: str) -> None:
        """Ends the parent, if it was begun, unless other parts are being run: then it is theirs."""
        if not self._begun:
            return
        others = self._claims.release() if self._claims else claims.running(self._tags())
        if others:
            theirs = next(iter(others.values()))
            self._parent.set_tags({name: theirs[name] for name in processes.process_tags()})
        else:
            self._parent.finish(status)

    def _tags(self) -> Mapping[str, str]:
        tags: Mapping[str, str] = self._store.client.get_run(self._parent.run_id).data.tags
        return tags

    # ------------------------------------------------------------------------------------------- the driver's home

    def renew(self) -> None:
        if self._claims:
            self._claims.renew()

    def recorded(self) -> list[RunRecord]:
        with suppress(CifarMlflowError):
            self._deliver(0)
        return self._records()

    def close_lost(self, reason: str, status: str) -> None:
        sweeps.close_lost(self._store, self._experiment_id, self._id, reason, status, self._held())

    def ended(self, planned: PlannedRun, outcome: TrialOutcome) -> None:
        """The store has it."""

    # ----------------------------------------------------------------------------------------------- what is there

    def _is_ours(self, tags: Mapping[str, str]) -> bool:
        """Whether a run with these first tags is of this sweep, and of no part that another process has."""
        return tags.get("sweep_id") == self._id and (self._names is None or tags.get("part") in (None, *self._names))

    def _deliver(self, timeout: float, *, busy_too: bool = False) -> None:
        """Delivers what the workers could not, trying for `timeout` seconds.

        `busy_too` waits for workers that are still writing as well.

        Raises:
            TrackingError: the store still cannot be reached, or a worker does not end; all is kept on disk.
        """
        until = time.monotonic() + timeout
        while True:
            outcome = sync.deliver(self._store, self._is_ours)
            busy = outcome.busy if busy_too else []
            left = outcome.waiting | dict.fromkeys(busy, "still being written by its own process")
            if not left:
                return
            if time.monotonic() > until:
                first = ": ".join(next(iter(left.items())))
                wait = f"{len(left)} runs of the sweep wait on disk for the tracking store ({first})"
                raise TrackingError(f"{wait}; the same command goes on from here")
            time.sleep(1.0)

    def _close_abandoned(self, tell: Callable[[str], None] = lambda text: None) -> None:
        waiting = "waiting for the workers of an earlier start to close their runs"
        sweeps.close_abandoned(self._store, self._experiment_id, self._id, lambda: tell(waiting), self._held())

    def _held(self) -> list[str] | None:
        """The parts that no other process may be at work on; None if that is the whole sweep."""
        if self._parts is None:
            return None
        return [f"{number}/{self._parts.of}" for number in (self._claims.taken if self._claims else [])]

    def _take_in(self) -> None:
        """Makes those delivered runs the sweep's own that were recorded without a store, if it has such runs."""
        delivered = sweeps.offline_trials(self._store, self._experiment_id, self._spec.name)
        if not delivered or self._spec.sampler == "tpe":
            return
        planned = Plan(self._spec, TuningStudy(self._spec, None), self._fingerprint, [], self._everything())
        fitting = [run for run in delivered if run.data.tags.get("run_fingerprint") in planned.fingerprints]
        for run in fitting:
            sweeps.take_in(self._store, run, self._parent.run_id, self._id)
        if others := len(delivered) - len(fitting):
            what = f"{count(others, 'run')} that were recorded offline under the name {self._spec.name}"
            warn(f"{what} are of another spec, other data or another network, and are left alone")

    def _fingerprint(self, config: TrainingConfig) -> str:
        return config.run_fingerprint(*self._digests(trial.settings(config)))

    def _records(self, *metrics: str) -> list[RunRecord]:
        """The sweep's runs, each of them once, with the values by epoch of `metrics`."""
        found = sweeps.children(self._store, self._experiment_id, self._id)
        return runs.without_superseded(runs.to_records(self._store, found, metrics))

    def _publish_views(self) -> str:
        """Saves the views of the sweep in MLflow's UI; returns what opens the leaderboard."""
        spec = self._spec
        saved = ui_views.publish_views(
            self._store, self._experiment_id, list(spec.space), sweep=spec.name, trains_on_all=spec.is_replication
        )
        link = ui_views.view_url(self._store, self._experiment_id, next(iter(saved.values())))
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
