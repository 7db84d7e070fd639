"""Promote a model: register it, prove it by every gate, and only then let the alias name it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.analysis import gates as rules
from cifar_mlflow.analysis.gates import Gate, Rivals
from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.jobs.console import say
from cifar_mlflow.jobs.promotion import gates as examination
from cifar_mlflow.jobs.promotion.gates import Bars
from cifar_mlflow.jobs.training import signals
from cifar_mlflow.text import NAME_LIMIT, REASON_LIMIT, fault, shown
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import models, sweeps
from cifar_mlflow.tracking.reading.evaluations import Evaluation
from cifar_mlflow.tracking.reading.models import FoundModel
from cifar_mlflow.tracking.registry import aliases
from cifar_mlflow.tracking.registry.lease import lease
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import provenance
from cifar_mlflow.tracking.writing.recorder import Recorder, mark_job

PROMOTED, REFUSED, ALREADY, DRY_RUN = "promoted", "refused", "already there", "dry run"


@dataclass(frozen=True)
class Verdict:
    """How a promotion ended, with all that it was decided on.

    `status` is promoted, refused, already there (the alias names this version already) or dry run (the registry was
    left as it is). `version` is None in a dry run of a model that is not registered. `rivals` are McNemar's counts
    against the champion, None if there was none.
    """

    name: str
    alias: str
    version: str | None
    champion: str | None
    model_uri: str
    run_id: str
    run_name: str
    status: str
    gates: tuple[Gate, ...]
    rivals: Rivals | None
    test_accuracy: float | None
    forced: str | None
    time: str
    by: str
    commit: str

    @property
    def failed(self) -> list[str]:
        """The names of the gates that failed."""
        return [gate.name for gate in self.gates if gate.passed is False]

    @property
    def sentence(self) -> str:
        """What came of it, in one line."""
        version = f"{self.name} version {self.version}" if self.version else f"{self.model_uri} as {self.name}"
        reasons = f"gate{'s' if len(self.failed) > 1 else ''} {', '.join(self.failed)} failed"
        before = f" in place of version {self.champion}" if self.champion else ", the first"
        if self.status == ALREADY:
            return f"{version} is {self.alias} already" + (f", but its {reasons}" if self.failed else "")
        if self.status == DRY_RUN:
            may = f"would be refused: {reasons}" if self.failed and not self.forced else "would be promoted"
            return f"dry run, the registry is as it was: {version} {may}"
        if self.status == REFUSED:
            return f"{version} was refused: {reasons}"
        forced = f", forced against its {reasons} ({self.forced})" if self.forced and self.failed else ""
        return f"{version} became {self.alias}{before}{forced}"

    def as_json(self) -> str:
        """Everything, with the outcome of each gate."""
        return json.dumps({**asdict(self), "failed": self.failed, "sentence": self.sentence}, indent=2)


@process_state.preserved()
def promote(
    model: str | None = None,
    *,
    best_of: str | None = None,
    weights: str = "last",
    name: str | None = None,
    alias: str = aliases.CHAMPION,
    bars: Bars | None = None,
    force: str | None = None,
    dry_run: bool = False,
    data_dir: str | None = None,
) -> Verdict:
    """Registers `model`, or the winner of the sweep `best_of`, and moves the alias to it if every gate lets it through.

    `name` is the registered model (default: the dataset's name). `force` is the reason to promote against a gate; it
    does not help against integrity and smoke. `dry_run` leaves the registry as it is.

    Raises:
        ConfigurationError: the options contradict each other.
        ModelError: there is no such model.
        DataError: the model, or the champion, has to be evaluated, and its test set is not here.
        TrackingError: the store cannot be read or written.
    """
    bars = bars or Bars()
    _check(model, best_of, name, alias, bars, force)
    store = tracking_store.connect()
    mark_job(store)
    found = models.find_model(store, model or sweeps.winner(store, str(best_of)), weights)
    name = name or Path(found.config.dataset).stem
    promotion = _Promotion(store, found, name, alias, bars, force, dry_run, data_dir)
    return promotion.run()


def _check(model: str | None, best_of: str | None, name: str | None, alias: str, bars: Bars, force: str | None) -> None:
    faults = []
    if (model is None) == (best_of is None):
        faults.append("give either MODEL or --best-of SWEEP")
    for option, value in (("--min-accuracy", bars.min_accuracy), ("--min-class-recall", bars.min_class_recall)):
        if value is not None and not 0 <= value <= 100:
            faults.append(f"{option}: {value:g} is refused: must be per cent, from 0 to 100")
    if not 0 < bars.significance < 1:
        faults.append(f"--significance: {bars.significance:g} is refused: must lie between 0 and 1, such as 0.05")
    if name is not None and (not name.strip() or re.search(r"[/:@]", name)):
        faults.append(f"--name: {shown(name)} is refused: must not be empty, and not contain / : or @")
    for option, text, limit in (("--name", name, NAME_LIMIT), ("--force", force, REASON_LIMIT)):
        if text and (told := fault(text, limit, allowed="" if option == "--name" else "\n\t")):
            faults.append(f"{option}: {shown(text)} is refused: {told}")
    if not re.fullmatch(r"[A-Za-z_][\w-]*", alias) or alias.lower() == "latest" or re.fullmatch(r"v\d+", alias):
        faults.append(f"--alias: {shown(alias)} is refused: must be a word such as champion, but not latest or v1")
    if alias.startswith("previous"):
        faults.append(f"--alias: {shown(alias)} is refused: it is kept for the version that rollback brings back")
    if force is not None and not force.strip():
        faults.append("--force: must say why")
    if faults:
        raise ConfigurationError(faults, "options")


@dataclass
class _Promotion:
    """One promotion in progress."""

    store: Store
    found: FoundModel
    name: str
    alias: str
    bars: Bars
    force: str | None
    dry_run: bool
    data_dir: str | None

    def run(self) -> Verdict:
        version, champion = self._register()
        uri = f"models:/{self.name}/{version}" if version else self.found.uri
        with tempfile.TemporaryDirectory() as temporary:
            directory = examination.download(self.store, self.found, Path(temporary))
            on_files = examination.of_the_files(self.found, uri, directory, self.store)
            safe = all(gate.passed for gate in on_files if gate.name in examination.SAFETY)
            evaluation = self._evaluation(self.found) if safe else None
            while True:
                verdict = self._judge(version, champion, on_files, directory, evaluation)
                if self.dry_run:
                    return replace(verdict, status=DRY_RUN)
                if self._conclude(verdict):
                    return verdict
                # Another promotion came first: what counts is the champion of this moment.
                champion = aliases.holder(self.store, self.name, self.alias)
                say(f"the {self.alias} has changed meanwhile: comparing with version {champion}")

    def _register(self) -> tuple[str | None, str | None]:
        """The version of the model, registered if it is not yet, and the version that holds the alias."""
        if self.dry_run:
            if not aliases.exists(self.store, self.name):
                return None, None
            version = aliases.version_of(self.store, self.name, self.found.uri)
            return version, aliases.holder(self.store, self.name, self.alias)
        aliases.ensure(self.store, self.name)
        with signals.held_back(), lease(self.store, self.name, self._waiting):
            version = aliases.register(self.store, self.name, self.found.uri, self.found.run_id)
            aliases.repair(self.store, self.name, self.alias)
            return version, aliases.holder(self.store, self.name, self.alias)

    def _judge(
        self,
        version: str | None,
        champion: str | None,
        on_files: list[Gate],
        directory: Path,
        evaluation: Evaluation | None,
    ) -> Verdict:
        """The verdict against the champion of this moment, which is not yet acted on."""
        rival, lost = None, ""
        if champion not in (None, version):
            try:
                rival = self._champion_evaluation(str(champion))
            except ModelError as error:  # it was deleted, or damaged: no reason to be stuck with it, but one to be told
                lost = str(error)
        on_answers = examination.of_the_test_set(self.found, directory, evaluation, rival, self.bars)
        rivals = None
        if evaluation and rival and evaluation.test_digest == rival.test_digest:
            rivals = Rivals.count(evaluation.correct, rival.correct)
        level = (self.bars.require, self.bars.significance)
        if champion == version and version is not None:
            last = Gate("champion", "no comparison with itself", f"version {version} is the {self.alias} already", None)
        elif champion is None:
            last = rules.champion(None, *level, f"there is no {self.alias}")
        elif rivals:
            last = rules.champion(rivals, *level, f"version {champion}")
        else:
            reason = f"not comparable with version {champion}{': ' + lost if lost else ''}"
            last = Gate("champion", "a comparison on the same images", reason, False)
        chain = (*on_files, *on_answers, last)
        failed = {gate.name for gate in chain if gate.passed is False}
        # No reason makes files safe that are not those that were logged, or that do not compute what they should.
        forced = self.force if failed and failed.isdisjoint(examination.SAFETY) else None
        if champion == version and version is not None:
            status = ALREADY
        else:
            status = REFUSED if failed and not forced else PROMOTED
        commit, dirty = provenance.commit_and_state()
        return Verdict(
            name=self.name,
            alias=self.alias,
            version=version,
            champion=champion,
            model_uri=self.found.uri,
            run_id=self.found.run_id,
            run_name=self.found.run_name,
            status=status,
            gates=chain,
            rivals=rivals,
            test_accuracy=float(100 * evaluation.correct.mean()) if evaluation else None,
            forced=forced,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            by=provenance.user(),
            commit=f"{commit}{' with changes' if dirty else ''}" if commit else "unknown",
        )

    def _conclude(self, verdict: Verdict) -> bool:
        """Writes the verdict and moves the alias, unless the alias has moved since the comparison: then False."""
        version = str(verdict.version)
        with signals.held_back(), lease(self.store, self.name, self._waiting) as turn:
            aliases.repair(self.store, self.name, self.alias)
            if aliases.holder(self.store, self.name, self.alias) != verdict.champion:
                return False
            if verdict.status != ALREADY:
                self._record(verdict)
            if verdict.status == PROMOTED:
                turn.check()
                aliases.move(
                    self.store,
                    self.name,
                    self.alias,
                    "promote",
                    version,
                    reason=f"forced: {verdict.forced}" if verdict.forced else "",
                    accuracy=verdict.test_accuracy,
                )
        return True

    def _record(self, verdict: Verdict) -> None:
        """The verdict at the run, as an artifact, and at the version, for those who read it in MLflow's UI."""
        stamp = re.sub(r"\D", "", verdict.time)[:14]
        run = Recorder(self.store, self.found.run_id, self.found.experiment_id, self.found.run_name)
        path = f"promotion/{self.name}-version-{verdict.version}-{stamp}.json"
        run.log_files({path: verdict.as_json().encode()})
        reasons = "; ".join(f"{gate.name}: {gate.observed}" for gate in verdict.gates if gate.passed is False)
        if verdict.status == REFUSED and self._was_promoted(str(verdict.version)):
            # What it was promoted by stays told; that it was refused since is added.
            aliases.tag_version(self.store, self.name, str(verdict.version), {"rejected": reasons})
            return
        tags = {"verdict": verdict.status}
        tags |= {"test_accuracy": f"{verdict.test_accuracy:.2f}"} if verdict.test_accuracy is not None else {}
        tags |= {"rejected": reasons} if verdict.status == REFUSED else {}
        tags |= {"forced": str(verdict.forced)} if verdict.forced else {}
        gone = () if verdict.status == REFUSED else ("rejected",)
        aliases.describe_version(
            self.store, self.name, str(verdict.version), _description(verdict, self.found, path), tags, gone
        )

    def _was_promoted(self, version: str) -> bool:
        record = aliases.moves(self.store, self.name)
        return any((move.action, move.version) == ("promote", version) for move in record)

    def _evaluation(self, found: FoundModel) -> Evaluation:
        return examination.evaluation_of(self.store, found, self.data_dir, say)

    def _champion_evaluation(self, version: str) -> Evaluation:
        return self._evaluation(models.find_model(self.store, f"models:/{self.name}/{version}"))

    @property
    def _waiting(self) -> Callable[[], None]:
        return lambda: say(f"waiting for another promotion of {self.name} to end")


def _description(verdict: Verdict, found: FoundModel, artifact: str) -> str:
    """The version's description in MLflow's UI."""
    at = datetime.fromisoformat(verdict.time).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"{verdict.sentence} ({at}, by {verdict.by}, commit {verdict.commit[:12]}).",
        f"From the run [{found.run_name}](#/experiments/{found.experiment_id}/runs/{found.run_id}), "
        f"{found.weights} weights, trained on {found.config.dataset}; the verdict is its artifact `{artifact}`.",
        rules.markdown(verdict.gates),
    ]
    return "\n\n".join(lines)
