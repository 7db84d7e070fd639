"""A sweep's runs: which are done, which are in progress, which come next. One run a configuration and seed."""

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.records import RunRecord, TrialOutcome
from cifar_mlflow.text import as_option
from cifar_mlflow.tuning.study import Suggestion, TuningStudy

ATTEMPTS = 2  # a run whose worker was killed is tried once more


@dataclass(frozen=True)
class PlannedRun:
    """A run that has to be trained. `fingerprint` names its configuration, seed and data."""

    trial: Suggestion
    config: TrainingConfig
    fingerprint: str
    prunable: bool


@dataclass
class _Trial:
    suggestion: Suggestion
    told: bool
    configs: deque[TrainingConfig]
    """Those of its runs that were not queued yet."""
    outcomes: list[TrialOutcome] = field(default_factory=list)


class Plan:
    """Hands out runs, takes their outcomes, and tells the study of each trial that is complete.

    No run is handed out twice: one whose fingerprint has an outcome already, from an earlier start or another trial,
    takes that outcome. `outcomes` is by fingerprint; `known` are those of an earlier start, with their trial's values.

    With `parts`, only their runs are handed out. Which those are depends on the spec and the data alone.
    """

    def __init__(
        self,
        spec: SweepConfig,
        study: TuningStudy,
        fingerprint: Callable[[TrainingConfig], str],
        known: Iterable[RunRecord],
        parts: Parts | None = None,
    ) -> None:
        self._spec, self._study, self._fingerprint, self.parts = spec, study, fingerprint, parts
        self._numbers: dict[str, int] = {}  # of the runs in the sweep's own order, by fingerprint
        self.outcomes = self._outcomes(known)
        self._queue: deque[PlannedRun] = deque()
        self._in_progress: dict[str, list[_Trial]] = {}
        self._attempts: Counter[str] = Counter()
        self._before = len(self.outcomes)
        self.known: list[tuple[dict[str, Any], TrialOutcome]] = []
        for suggestion in study.told():  # where repeats were added, or a run was lost, an ended trial lacks runs
            self._open(suggestion, told=True)
        if parts:
            for suggestion in iter(study.suggest, None):
                self._open(suggestion, told=False)

    @property
    def runs(self) -> int:
        """The number of runs that the sweep, or its parts, come to.

        With a configuration's first seed, its others are pruned too.
        """
        if self.parts:
            return sum(map(self.parts.has, self._numbers.values()))
        pruned = sum(outcome.status == "PRUNED" for outcome in self.outcomes.values())
        return self._spec.configurations * self._spec.repeats - pruned * (self._spec.repeats - 1)

    @property
    def own_outcomes(self) -> list[TrialOutcome]:
        """The outcomes of those runs."""
        if self.parts is None:
            return list(self.outcomes.values())
        own = (name for name, number in self._numbers.items() if self.parts.has(number))
        return [self.outcomes[name] for name in own if name in self.outcomes]

    @property
    def fingerprints(self) -> Collection[str]:
        """Of the runs that are known so far; with parts, of all runs of the sweep."""
        return self._numbers.keys()

    def part_of(self, planned: PlannedRun) -> str | None:
        """The part that the run is in: 2/4."""
        return self.parts.name(self._numbers[planned.fingerprint]) if self.parts else None

    @property
    def handed_out(self) -> int:
        """The number of runs that have an outcome or were handed out."""
        return self._before + len(self._attempts)

    def has_next(self) -> bool:
        """Whether there is a run to train now; once the runs in progress have ended, there may be more."""
        while not self._queue:
            suggestion = self._study.suggest()
            if suggestion is None:
                return False
            self._open(suggestion, told=False)
        return True

    def next(self) -> PlannedRun | None:
        """The next run to train, if there is one now."""
        if not self.has_next():
            return None
        planned = self._queue.popleft()
        self._attempts[planned.fingerprint] += 1
        return planned

    def finish(self, planned: PlannedRun, outcome: TrialOutcome) -> None:
        """Takes the outcome of a run that was handed out."""
        self.outcomes[planned.fingerprint] = outcome
        for trial in self._in_progress.pop(planned.fingerprint):
            self._take(trial, outcome)

    def recorded(self, planned: PlannedRun, records: Iterable[RunRecord]) -> TrialOutcome | None:
        """The outcome of a run that was handed out, if the `records` have it."""
        return self._outcomes(records).get(planned.fingerprint)

    def lost(self, planned: PlannedRun) -> bool:
        """Takes note that the worker of a run was killed; whether the run will be handed out again."""
        if self._attempts[planned.fingerprint] >= ATTEMPTS:
            return False
        self._queue.appendleft(planned)
        return True

    def report(self, planned: PlannedRun, epoch: int, value: float) -> bool:
        """Takes the objective after an epoch; whether the run shall go on. What was trained to its end is a result."""
        if not planned.prunable or epoch == planned.config.epochs:
            return True
        return self._study.report(planned.trial.number, epoch, value)

    def _open(self, suggestion: Suggestion, told: bool) -> None:
        configs = deque(self._spec.configuration(suggestion.values, seed) for seed in self._spec.seeds)
        self._advance(_Trial(suggestion, told, configs))

    def _advance(self, trial: _Trial) -> None:
        """Queues the trial's runs: all at once, or, if its first may be pruned, the others once that has finished."""
        repeats, first_decides = self._spec.repeats, self._spec.pruner != "none"
        while trial.configs and not (first_decides and len(trial.configs) < repeats and not trial.outcomes):
            config = trial.configs.popleft()
            fingerprint = self._fingerprint(config)
            number = self._numbers.setdefault(fingerprint, len(self._numbers))
            if fingerprint in self.outcomes:
                self.known.append((trial.suggestion.values, self.outcomes[fingerprint]))
                self._take(trial, self.outcomes[fingerprint])
            elif fingerprint in self._in_progress:
                self._in_progress[fingerprint].append(trial)
            elif self.parts is None or self.parts.has(number):
                self._in_progress[fingerprint] = [trial]
                prunable = first_decides and len(trial.configs) == repeats - 1 and not trial.told
                self._queue.append(PlannedRun(trial.suggestion, config, fingerprint, prunable))

    def _take(self, trial: _Trial, outcome: TrialOutcome) -> None:
        trial.outcomes.append(outcome)
        if outcome.status == "PRUNED":
            trial.configs.clear()
            self._study.tell(trial.suggestion.number, None, pruned=True)
        elif len(trial.outcomes) < self._spec.repeats:
            self._advance(trial)
        elif not trial.told:
            values = [math.nan if each.value is None else each.value for each in trial.outcomes]
            # The seed by which the pruner let it through is a lucky one.
            counted = values[1:] if self._spec.pruner != "none" and len(values) > 1 else values
            # A configuration that fails with some seed is no candidate, however well the others went.
            finished = all(map(math.isfinite, values))
            self._study.tell(trial.suggestion.number, sum(counted) / len(counted) if finished else None)

    def _outcomes(self, records: Iterable[RunRecord]) -> dict[str, TrialOutcome]:
        """Of those runs that would come to the same again: they finished, were pruned, or their training failed."""
        objective = "epoch_test_accuracy" if self._spec.is_replication else self._spec.objective
        found = {}
        for record in (each for each in records if "run_fingerprint" in each.tags):
            fingerprint, status = record.tags["run_fingerprint"], record.status
            if record.tags.get("pruned") == "true":
                found[fingerprint] = TrialOutcome("PRUNED")
            elif status == "FAILED" and record.tags.get("failure_type") in ("Diverged", "TrainingError"):
                found[fingerprint] = TrialOutcome("FAILED", reason=record.tags.get("failure", ""))
            elif status == "FINISHED":
                images = record.images.get("validation", 0)
                found[fingerprint] = TrialOutcome("FINISHED", record.metrics[objective], images=images)
        return found


def describe(values: Mapping[str, Any]) -> str:
    """A configuration by the parameters that vary: lr 0.1, activation relu."""
    return ", ".join(f"{name} {as_option(value)}" for name, value in values.items()) or "the base configuration"
