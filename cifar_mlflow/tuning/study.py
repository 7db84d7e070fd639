"""A sweep's trials in Optuna: which combination comes next, what was reported, what is worth going on with.

One process asks and tells, so the journal has one writer. It outlives that process: a trial that was being run when
the process ended is handed out again by the next one, under its old number and with its old values.
"""

import hashlib
import json
import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import distributions
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from cifar_mlflow import process_state
from cifar_mlflow.config.search_space import Choice, Parameter, ordered
from cifar_mlflow.config.sweep import OBJECTIVES, SweepConfig
from cifar_mlflow.text import as_option

REDUCTION = 4  # the pruner lets one in so many runs go on, and decides again after as many times the epochs


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number, from 0, and the values of those parameters that matter in it."""

    number: int
    values: dict[str, Any]


class TuningStudy:
    """The trials of one sweep. Not thread-safe; one process at a time may have the journal open."""

    def __init__(self, spec: SweepConfig, journal: Path | None) -> None:
        """Opens the `journal` (an absolute path), new or left behind by a process that is gone.

        Without one, nothing outlives the process: of a grid and of random draws the spec alone tells the trials.
        """
        process_state.set_level("optuna", logging.ERROR)
        storage: BaseStorage = InMemoryStorage()
        if journal is not None:
            journal.parent.mkdir(parents=True, exist_ok=True)
            repair_journal(journal)
            storage = JournalStorage(JournalFileBackend(str(journal)))
        self._spec = spec
        self._study = _open(storage, spec)
        self._grid = _in_order(spec) if spec.sampler == "grid" else None
        self._tried = {_key(self._values(trial)) for trial in self._trials()}
        self._interrupted = [trial.number for trial in self._trials("RUNNING")]

    def suggest(self) -> Suggestion | None:
        """The next trial to run; None once all that the spec asks for have been handed out."""
        if self._interrupted:
            trial = self._trial(self._interrupted.pop(0))
            return Suggestion(trial.number, self._choose(trial))
        if not self._trials("WAITING"):  # a trial that was enqueued before the process ended
            if self._grid is None and len(self._trials()) >= (self._spec.trials or 0):
                return None
            if self._grid is not None:
                values = next((values for values in self._grid if _key(values) not in self._tried), None)
                if values is None:
                    return None
                self._study.enqueue_trial({name: as_option(value) for name, value in values.items()})
        trial = self._study.ask()
        return Suggestion(trial.number, self._choose(trial))

    def told(self) -> list[Suggestion]:
        """The trials that `tell` has ended, by this process or an earlier one, without the pruned."""
        return [Suggestion(trial.number, self._values(trial)) for trial in self._trials("COMPLETE", "FAIL")]

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Takes the objective's value after an epoch; whether the run is worth going on with."""
        trial = self._trial(number)
        with warnings.catch_warnings(action="ignore"):  # a run that is started again reports its epochs again
            trial.report(value, epoch)
        return not trial.should_prune()

    def tell(self, number: int, value: float | None, pruned: bool = False) -> None:
        """Ends a trial with its objective; None if it failed or was pruned."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(number, value, state=state, skip_if_finished=True)

    def importances(self) -> dict[str, float]:
        """Each parameter's share in the objective's variation, largest first; empty if there is too little to tell."""
        done = self._trials("COMPLETE")
        if len(done) < 4 or len({trial.value for trial in done}) < 2:
            return {}
        with warnings.catch_warnings(action="ignore"), suppress(ValueError, RuntimeError):
            return dict(optuna.importance.get_param_importances(self._study))
        return {}  # a parameter with one value only

    def _trials(self, *states: str) -> list[FrozenTrial]:
        """Those in one of `states`, or all, by number."""
        return [each for each in self._study.get_trials(deepcopy=False) if not states or each.state.name in states]

    def _trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._trials()[number]._trial_id)  # no public call returns to a running one

    def _choose(self, trial: optuna.Trial) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, parameter in ordered(self._spec.space):
            if parameter.applies(values):
                self._study.sampler = self._sampler(trial.number, name)
                # One call for every kind of distribution; the public suggest_* are one each.
                values[name] = self._decode(name, trial._suggest(name, _distribution(self._spec, parameter)))
        self._tried.add(_key(values))
        return values

    def _decode(self, name: str, stored: Any) -> Any:
        parameter = self._spec.space[name]
        if isinstance(parameter, Choice) or isinstance(stored, str):
            return next(value for value in parameter.choices() if as_option(value) == stored)
        return parameter.cast(stored)

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        return {name: self._decode(name, stored) for name, stored in trial.params.items()}

    def _sampler(self, number: int, name: str) -> optuna.samplers.BaseSampler:
        # Seeded for each trial and parameter by itself: a sweep that is taken up again, even in the middle of a
        # trial's draws, draws what it would have drawn.
        seed = int(hashlib.sha256(f"{self._spec.base_config.seed}/{number}/{name}".encode()).hexdigest()[:8], 16)
        if self._spec.sampler != "tpe":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings(action="ignore"):
            # Trials that run at the same time must not all look at the same spot.
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _key(values: dict[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((name, as_option(value)) for name, value in values.items())


def _in_order(spec: SweepConfig) -> Iterator[dict[str, Any]]:
    """The grid's combinations. A pruner holds each against those before it, which must not be all of one kind."""
    if spec.pruner == "none":
        return spec.grid()
    combinations = list(spec.grid())
    random.Random(spec.base_config.seed).shuffle(combinations)
    return iter(combinations)


def _distribution(spec: SweepConfig, parameter: Parameter) -> distributions.BaseDistribution:
    if isinstance(parameter, Choice) or spec.sampler == "grid":
        # As texts: Optuna stores no lists, and holds 1 and True for equal.
        return distributions.CategoricalDistribution([as_option(value) for value in parameter.choices()])
    if parameter.is_whole:
        low, high, step = round(parameter.low), round(parameter.high), round(parameter.step or 1)
        return distributions.IntDistribution(low, high, log=parameter.log, step=step)
    return distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _open(storage: BaseStorage, spec: SweepConfig) -> optuna.Study:
    """The study of this very space; where values were added to the space, its older trials are taken along."""
    space = {name: _distribution(spec, parameter) for name, parameter in ordered(spec.space)}
    digest = hashlib.sha256(json.dumps([*map(repr, space.items())]).encode()).hexdigest()[:16]
    names = optuna.get_all_study_names(storage)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if spec.pruner == "successive_halving":
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=spec.min_epochs, reduction_factor=REDUCTION)
    study = optuna.create_study(
        storage=storage,
        pruner=pruner,
        study_name=digest,
        direction="maximize" if OBJECTIVES[spec.objective][1] else "minimize",
        load_if_exists=True,
    )
    if names and digest not in names:
        for trial in optuna.load_study(storage=storage, study_name=names[-1]).get_trials(deepcopy=True):
            trial.distributions = {name: space[name] for name in trial.params}
            study.add_trial(trial)
    return study


def repair_journal(journal: Path) -> None:
    """Removes what a process that was killed left half done: a lock, and a last line that is not whole."""
    # The caller sees to it that no other process has the journal open.
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    content = journal.read_bytes() if journal.exists() else b""
    whole = 0
    with suppress(ValueError):
        for line in content.splitlines(keepends=True):
            json.loads(line)
            whole += len(line) if line.endswith(b"\n") else 0
    if whole < len(content):
        os.truncate(journal, whole)
