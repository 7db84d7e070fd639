"""A part of a sweep where there is no network: its runs stay on disk until `sync` delivers them.

A report, or the next start of any part that has the store, takes them in. What is done is noted in the state directory,
since a run that was delivered meanwhile is seen neither here nor there.
"""

import functools
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import closing, suppress

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import spool_directory, writable
from cifar_mlflow.errors import TrackingError, TrainingError
from cifar_mlflow.jobs.listener import say
from cifar_mlflow.jobs.sweeping import trial
from cifar_mlflow.jobs.sweeping.driver import Driver
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.jobs.sweeping.places import Place
from cifar_mlflow.jobs.sweeping.plan import Plan, PlannedRun
from cifar_mlflow.jobs.sweeping.report import PartOutcome
from cifar_mlflow.jobs.training import pretrained
from cifar_mlflow.records import RunRecord, TrialOutcome
from cifar_mlflow.tracking.outbox import log, state
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.reading import sweeps
from cifar_mlflow.tuning.study import TuningStudy


def run(spec: SweepConfig, experiment: str, place: Place, mine: Parts) -> PartOutcome:
    """Trains what is left of the parts. Raises as `jobs.sweep.sweep`."""
    pretrained.read(spec.base_config, None)  # it refuses a model of the store
    digests = functools.cache(trial.digests)

    def fingerprint(config: TrainingConfig) -> str:
        return config.run_fingerprint(*digests(trial.settings(config)))

    home = _Disk(spec, experiment, mine)
    home.close_lost("the process that trained it is gone", "KILLED")
    plan = Plan(spec, TuningStudy(spec, None), fingerprint, home.recorded(), mine)
    try:
        Driver(spec, experiment, {"sweep_id": sweeps.OFFLINE}, home.log, home, place, offline=True).train(plan)
    except KeyboardInterrupt:
        say("interrupted; the finished runs are kept. The same command goes on from here")
        raise
    ended = plan.own_outcomes
    failed = [each for each in ended if each.status == "FAILED"]
    if ended and len(failed) == len(ended):
        raise TrainingError(f"every run of {mine} failed ({len(failed)}); the first: {failed[0].reason}")
    return PartOutcome(mine, experiment, len(ended), len(failed), spool=spool_directory())


class _Disk:
    """The state directory as the driver's `Home`."""

    def __init__(self, spec: SweepConfig, experiment: str, mine: Parts) -> None:
        self._spec, self._names = spec, mine.names
        self._objective = "epoch_test_accuracy" if spec.is_replication else spec.objective
        key = hashlib.sha256(f"{experiment}\n{spec.name}".encode()).hexdigest()[:16]
        self._directory = writable("sweeps") / f"offline-{key}"
        self._directory.mkdir(exist_ok=True)
        numbers = "-".join(map(str, mine.numbers))
        self.log = self._directory / f"workers-{numbers}.log"
        self._done = self._directory / f"{numbers}-of-{mine.of}.jsonl"  # each process writes one of its own

    def renew(self) -> None:
        pass

    def recorded(self) -> list[RunRecord]:
        return list(self._noted())

    def _noted(self) -> Iterator[RunRecord]:
        for path in sorted(self._directory.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # the last one of a process that was killed
                    fingerprint, value = json.loads(line)
                    tags = {"run_fingerprint": fingerprint}
                    yield RunRecord("", "", "FINISHED", 0, metrics={self._objective: value}, tags=tags)

    def close_lost(self, reason: str, status: str, lost: PlannedRun | None = None) -> None:
        for directory in log.outboxes(spool_directory()):
            seen = state.look(directory)
            ours = (seen.tags.get("sweep_id"), seen.tags.get("sweep")) == (sweeps.OFFLINE, self._spec.name)
            if not ours or seen.tags.get("part") not in self._names or seen.ended:
                continue
            with suppress(TrackingError), closing(Outbox(directory)) as outbox:  # else it is delivered in this moment
                outbox.append("tags", tags={"failure": reason})
                outbox.append("finish", status=status, timestamp=int(time.time() * 1000))

    def ended(self, planned: PlannedRun, outcome: TrialOutcome) -> None:
        if outcome.status == "FINISHED":
            with self._done.open("a", encoding="utf-8") as file:
                file.write(json.dumps([planned.fingerprint, outcome.value]) + "\n")
