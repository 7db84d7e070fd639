"""One start of a sweep, or of parts of one, from the look at what is there to the report."""

import functools
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from cifar_mlflow.config.sweep import OBJECTIVES, SweepConfig
from cifar_mlflow.config.sweep_changes import changes
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import state_directory
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError, ModelError, TrainingError
from cifar_mlflow.jobs import sync
from cifar_mlflow.jobs.listener import say, warn
from cifar_mlflow.jobs.sweeping import earlier, trial
from cifar_mlflow.jobs.sweeping import report as sweep_report
from cifar_mlflow.jobs.sweeping.driver import Driver
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.jobs.sweeping.places import Place
from cifar_mlflow.jobs.sweeping.plan import Plan, PlannedRun
from cifar_mlflow.jobs.sweeping.report import PartOutcome, SweepOutcome
from cifar_mlflow.jobs.sweeping.sweep_runs import SweepRuns
from cifar_mlflow.jobs.training import signals
from cifar_mlflow.records import TrialOutcome
from cifar_mlflow.text import count, redact
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import claims, runs, sweeps
from cifar_mlflow.tracking.registry.lease import sweeps_lease
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import ui_views
from cifar_mlflow.tuning.study import TuningStudy

STORE_TIMEOUT = 60.0  # seconds for a tracking store that went away to come back, at the end of a sweep


class SweepSession:
    """Runs the sweep, or the parts `mine` of it. Raises as `jobs.sweep.sweep`."""

    def __init__(self, spec: SweepConfig, store: Store, experiment: str, mine: Parts | None) -> None:
        self._spec, self._store, self._experiment, self._parts = spec, store, experiment, mine
        self._digests = functools.cache(trial.digests)
        self._experiment_id = store.experiment_id(experiment)
        self._runs, self._begun = SweepRuns(store, self._experiment_id, mine), False
        self._look()
        # The data are read before anything is written: no run is made for a dataset that is not there.
        trial.forget()
        self._fingerprint(spec.base_config)
        if self._earlier:
            sync.deliver(store, self._runs.is_ours)
            found = sweeps.children(store, self._experiment_id, self._runs.sweep_id)
            earlier.refuse_changed(spec, runs.to_records(store, found), self._digests)

    def _look(self) -> None:
        """Looks for an earlier start, and refuses to change what that was of."""
        self._earlier = sweeps.find_sweep(self._store, self._experiment_id, self._spec.name)
        if self._earlier is None:
            return
        self._runs.sweep_id = self._earlier.sweep_id
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
            self._parent, self._runs.sweep_id = sweeps.start_parent(
                store, self._experiment, spec.name, self._earlier, divided
            )
            self._begun = True
            self._parent.log_files({sweeps.SPEC_FILE: spec.as_yaml().encode()})
        if self._parts:
            numbers, of = self._parts.numbers, self._parts.of
            self._runs.claims = claims.Claims(store, self._experiment_id, self._parent.run_id, numbers, of)

    def run(self, place: Place) -> SweepOutcome | PartOutcome:
        """Takes the sweep, or the parts, to the end, or to that of the budget, and leaves nothing RUNNING."""
        mine = self._parts
        status = "FAILED"
        try:
            self._begin(mine.of if mine else None)
            directory = state_directory() / "sweeps" / self._runs.sweep_id
            if self._runs.claims:
                self._runs.claims.take(say)
            self._runs.deliver(STORE_TIMEOUT)
            self._runs.close_abandoned(say)
            # A worker of an earlier start may only now have ended, with a finished run that is not yet in the store.
            self._runs.deliver(STORE_TIMEOUT, busy_too=True)
            self._take_in()
            study = TuningStudy(self._spec, None if mine else directory / "journal.log")
            plan = Plan(self._spec, study, self._fingerprint, self._runs.records(), mine)
            say(f"watch it: {self._publish_views()}")
            tags = {"mlflow.parentRunId": self._parent.run_id, "sweep_id": self._runs.sweep_id}
            log = directory / f"workers{''.join(f'-{number}' for number in mine.numbers) if mine else ''}.log"
            complete = Driver(self._spec, self._experiment, tags, log, self._runs, place, offline=False).train(plan)
            self._runs.deliver(STORE_TIMEOUT)
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
                    self._runs.close_abandoned()
                self._leave(status)

    def report(self) -> SweepOutcome:
        """Publishes what the parts have come to, once all is there."""
        name, where = self._spec.name, redact(self._store.uri)
        if not self._earlier and not sweeps.offline_trials(self._store, self._experiment_id, name):
            raise ModelError(f"there is no sweep {name!r} in the experiment {self._experiment!r} of {where}")
        status = "SCHEDULED"
        try:
            self._begin(self._earlier.parts if self._earlier else None)
            self._runs.deliver(STORE_TIMEOUT)
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
        assert self._runs.claims is not None
        others = self._runs.claims.release()
        # Whoever is released last finds what all others have delivered before.
        whole, study, missing = self._whole()
        if not missing and not others:
            return self._publish_complete(whole, study)
        ended = plan.own_outcomes
        failed = [each for each in ended if each.status == "FAILED"]
        if ended and len(failed) == len(ended):
            raise TrainingError(f"every run of {mine} failed ({len(failed)}); the first: {failed[0].reason}")
        lacks = tuple(self._lacking(whole, missing, others))
        return PartOutcome(mine, self._experiment, len(ended), len(failed), self._parent.run_id, lacks)

    def _whole(self) -> tuple[Plan, TuningStudy, list[PlannedRun]]:
        """The plan of all parts, as far as the store has outcomes, its study, and the runs without any."""
        records, study = self._runs.records(), TuningStudy(self._spec, None)
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
        sweeps.close_lost(self._store, self._experiment_id, self._runs.sweep_id, why, "KILLED", everything)
        return self._publish(plan, study, True)

    def _leave(self, status: str) -> None:
        """Ends the parent, if it was begun, unless other parts are being run: then it is theirs."""
        if not self._begun:
            return
        others = self._runs.claims.release() if self._runs.claims else claims.running(self._tags())
        if others:
            theirs = next(iter(others.values()))
            self._parent.set_tags({name: theirs[name] for name in processes.process_tags()})
        else:
            self._parent.finish(status)

    def _tags(self) -> Mapping[str, str]:
        tags: Mapping[str, str] = self._store.client.get_run(self._parent.run_id).data.tags
        return tags

    # ----------------------------------------------------------------------------------------------- what is there

    def _take_in(self) -> None:
        """Makes those delivered runs the sweep's own that were recorded without a store, if it has such runs."""
        delivered = sweeps.offline_trials(self._store, self._experiment_id, self._spec.name)
        if not delivered or self._spec.sampler == "tpe":
            return
        planned = Plan(self._spec, TuningStudy(self._spec, None), self._fingerprint, [], self._everything())
        fitting = [run for run in delivered if run.data.tags.get("run_fingerprint") in planned.fingerprints]
        for run in fitting:
            sweeps.take_in(self._store, run, self._parent.run_id, self._runs.sweep_id)
        if others := len(delivered) - len(fitting):
            what = f"{count(others, 'run')} that were recorded offline under the name {self._spec.name}"
            warn(f"{what} are of another spec, other data or another network, and are left alone")

    def _fingerprint(self, config: TrainingConfig) -> str:
        return config.run_fingerprint(*self._digests(trial.settings(config)))

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
        records = self._runs.records("epoch_test_accuracy" if spec.is_replication else OBJECTIVES[spec.objective][0])
        compared, winner = sweep_report.publish(self._parent, spec, records, importances)
        if outcomes and len(failed) == len(outcomes):
            raise TrainingError(f"every run of the sweep failed ({len(failed)}); the first: {failed[0].reason}")
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
