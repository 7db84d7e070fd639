"""Promote a model: register it, prove it by every gate, and only then let the alias name it."""

import re
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.analysis.gates import Gate, Rivals
from cifar_mlflow.analysis.gates import champion as champion_gate
from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.jobs.evaluate import evaluate_model, read_test_set
from cifar_mlflow.jobs.listener import say, warn
from cifar_mlflow.jobs.promotion import gates, rivals
from cifar_mlflow.jobs.promotion.gates import Thresholds
from cifar_mlflow.jobs.promotion.rivals import Rival
from cifar_mlflow.jobs.promotion.verdict import ALREADY, DRY_RUN, PROMOTED, REFUSED, PromotionVerdict
from cifar_mlflow.jobs.training import signals
from cifar_mlflow.text import NAME_LIMIT, REASON_LIMIT, fault, shown
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import evaluations, models, sweeps
from cifar_mlflow.tracking.reading.evaluations import Evaluation, ImageSet
from cifar_mlflow.tracking.reading.models import FoundModel
from cifar_mlflow.tracking.registry import aliases, versions
from cifar_mlflow.tracking.registry.lease import lease
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import provenance
from cifar_mlflow.tracking.writing.recorder import Recorder, mark_job


@process_state.preserved()
def promote(
    model: str | None = None,
    *,
    best_of: str | None = None,
    weights: str = "last",
    name: str | None = None,
    alias: str = aliases.CHAMPION,
    thresholds: Thresholds | None = None,
    force: str | None = None,
    dry_run: bool = False,
    on: str = "test",
    dataset: str | None = None,
    data_dir: str | None = None,
) -> PromotionVerdict:
    """Registers `model`, or the winner of the sweep `best_of`, and moves the alias to it if every gate lets it through.

    `name` is the registered model (default: the dataset's name). `force` is the reason to promote against a gate; it
    does not help against integrity and smoke. `dry_run` leaves the registry as it is. The model is judged on the test
    images of its own data or of another `dataset`, or, `on` validation, by its answers to the validation images.

    Raises:
        ConfigurationError: the options contradict each other.
        ModelError: there is no such model.
        DataError: the model, or the champion, has to be evaluated, and its test set is not here.
        TrackingError: the store cannot be read or written.
    """
    thresholds = thresholds or Thresholds()
    _check(model, best_of, name, alias, thresholds, force)
    if on not in ("test", "validation"):
        raise ConfigurationError(f"--on: {shown(on)} is refused: must be test or validation", "options")
    if on == "validation":
        if dataset is not None:
            raise ConfigurationError("--dataset: its test images cannot be combined with --on validation", "options")
        if data_dir is not None:
            warn("--data-dir has no effect with --on validation: the training has recorded the answers")
    store = tracking_store.connect()
    mark_job(store)
    found = models.find_model(store, sweeps.winner(store, str(best_of)) if model is None else model, weights)
    name = name or found.config.dataset_name
    images = ImageSet(on)
    if dataset is not None:
        takes = models.model_interface(found.uri)
        scored = read_test_set(dataset, takes.classes, takes.image_shape, data_dir)
        images = ImageSet(on, scored.name, scored.test_digest)
    return _Promotion(store, found, name, alias, thresholds, force, dry_run, images, dataset, data_dir).run()


def _check(
    model: str | None, best_of: str | None, name: str | None, alias: str, asked: Thresholds, force: str | None
) -> None:
    faults = ["give either MODEL or --best-of SWEEP"] if (model is None) == (best_of is None) else []
    for option, value in (("--min-accuracy", asked.min_accuracy), ("--min-class-recall", asked.min_class_recall)):
        if value is not None and not 0 <= value <= 100:
            faults.append(f"{option}: {value:g} is refused: must be per cent, from 0 to 100")
    if asked.margin is not None and not 0 < asked.margin < 100:
        faults.append(f"--margin: {asked.margin:g} is refused: must be points of accuracy, above 0 and below 100")
    if asked.margin is not None and asked.require == "better":
        faults.append("--margin says by how much a model may be worse; it cannot be combined with --require better")
    if not 0 < asked.significance < 1:
        faults.append(f"--significance: {asked.significance:g} is refused: must lie between 0 and 1, such as 0.05")
    if name is not None and (not name.strip() or re.search(r"[/:@]", name)):
        faults.append(f"--name: {shown(name)} is refused: must not be empty, and not contain / : or @")
    for option, text, limit in (
        ("--name", name, NAME_LIMIT),
        ("--alias", alias, NAME_LIMIT),
        ("--force", force, REASON_LIMIT),
    ):
        if text and (told := fault(text, limit, allowed="\n\t" if option == "--force" else "")):
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
    thresholds: Thresholds
    force: str | None
    dry_run: bool
    images: ImageSet
    dataset: str | None
    data_dir: str | None

    def run(self) -> PromotionVerdict:
        version, champion = self._register()
        with tempfile.TemporaryDirectory() as temporary:
            directory = models.download(self.found.uri, Path(temporary))
            on_files = gates.of_the_files(self.found, directory, self.store)
            safe = all(gate.passed for gate in on_files if gate.name in gates.SAFETY)
            evaluation = self._evaluation(self.found) if safe else None
            while True:
                verdict = self._judge(version, champion, on_files, directory, evaluation)
                if self.dry_run:
                    return replace(verdict, status=DRY_RUN)
                if self._conclude(verdict):
                    return verdict
                # Another promotion came first, and its model is now the champion to compare with.
                champion = aliases.holder(self.store, self.name, self.alias)
                say(f"the {self.alias} has changed meanwhile: comparing with version {champion}")

    def _register(self) -> tuple[str | None, str | None]:
        """The version of the model, registered if it is not yet, and the version that holds the alias."""
        if self.dry_run:
            if not versions.exists(self.store, self.name):
                return None, None
            version = versions.version_of(self.store, self.name, self.found.uri)
            return version, aliases.holder(self.store, self.name, self.alias)
        versions.ensure(self.store, self.name)
        with signals.held_back(), lease(self.store, self.name, say):
            version = versions.register(self.store, self.name, self.found.uri, self.found.run_id)
            aliases.repair(self.store, self.name, self.alias)
            return version, aliases.holder(self.store, self.name, self.alias)

    def _judge(
        self, version: str | None, champion: str | None, on_files: list[Gate], directory: Path, own: Evaluation | None
    ) -> PromotionVerdict:
        """The verdict against the champions until this moment, which is not yet acted on; `own` is the evaluation."""
        present: Rival | None = None
        best: Rival | None = None
        counts, lost, passed_over = None, "", list[str]()
        itself = champion is not None and champion == version
        if champion is not None and not itself:
            try:
                present = best = Rival(champion, self._evaluation(self._version(champion)))
            except ModelError as error:  # a champion that was deleted or damaged can be replaced, with --force
                lost = str(error)
        if own and present and own.digest == present.answers.digest:
            best, passed_over = rivals.best_champion(self.store, self.name, self.alias, present, version, self.images)
            counts = Rivals.count(own.correct, best.answers.correct)
        if itself:
            already = f"version {version} is the {self.alias} already"
            compared = Gate("champion", "no comparison with itself", already, None)
        elif champion is not None and counts is None:
            reason = f"not comparable with version {champion}{': ' + lost if lost else ''}"
            compared = Gate("champion", "a comparison on the same images", reason, False)
        else:
            against = f"version {best.version}" if best else f"there is no {self.alias}"
            asked = self.thresholds
            compared = champion_gate(counts, asked.require, asked.significance, against, asked.margin)
            if passed_over:
                observed = f"{compared.observed}; champions that cannot be compared: {'; '.join(passed_over)}"
                compared = replace(compared, observed=observed)
        before = rivals.judged_before(self.store, self.name, version, own.digest) if own else 0
        answers = present.answers if present else None
        on_images = gates.of_the_images(directory, own, answers, self.thresholds, self.images, before)
        chain = (*on_files, *on_images, compared)
        failed = {gate.name for gate in chain if gate.passed is False}
        # --force helps neither against files that were changed nor against a model that computes something else.
        forced = self.force if failed and failed.isdisjoint(gates.SAFETY) else None
        return PromotionVerdict(
            name=self.name,
            alias=self.alias,
            version=version,
            champion=champion,
            rival=best.version if best and counts else None,
            model_uri=self.found.uri,
            run_id=self.found.run_id,
            run_name=self.found.run_name,
            status=ALREADY if itself else REFUSED if failed and not forced else PROMOTED,
            gates=chain,
            rivals=counts,
            on=self.images.name,
            images=own.digest if own else "",
            accuracy=own.accuracy if own else None,
            forced=forced,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            by=provenance.user(),
            commit=provenance.describe_commit(),
        )

    def _conclude(self, verdict: PromotionVerdict) -> bool:
        """Writes the verdict and moves the alias, unless the alias has moved since the comparison: then False."""
        version = str(verdict.version)
        with signals.held_back(), lease(self.store, self.name, say) as turn:
            aliases.repair(self.store, self.name, self.alias)
            if aliases.holder(self.store, self.name, self.alias) != verdict.champion:
                return False
            if verdict.status != ALREADY:
                self._record(verdict)
            if verdict.status == PROMOTED:
                turn.check()
                reason = f"forced: {verdict.forced}" if verdict.forced else ""
                judged = {"accuracy": verdict.accuracy, "on": verdict.on, "images": verdict.images}
                aliases.move(self.store, self.name, self.alias, "promote", version, reason=reason, **judged)
        return True

    def _record(self, verdict: PromotionVerdict) -> None:
        """Writes the verdict to the run, as an artifact, and to the version, where MLflow's UI shows it."""
        version, stamp = str(verdict.version), re.sub(r"\D", "", verdict.time)[:14]
        path = f"promotion/{self.name}-version-{version}-{stamp}.json"
        run = Recorder(self.store, self.found.run_id, self.found.experiment_id, self.found.run_name)
        run.log_files({path: verdict.as_json().encode()})
        refused = verdict.status == REFUSED
        reasons = "; ".join(f"{gate.name}: {gate.observed}" for gate in verdict.gates if gate.passed is False)
        moves = aliases.moves(self.store, self.name) if refused else []
        if any((move.action, move.version) == ("promote", version) for move in moves):
            # The description of its promotion stays; that it was refused since is added.
            versions.set_tags(self.store, self.name, version, {"rejected": reasons})
            return
        tags = {"verdict": verdict.status}
        if verdict.accuracy is not None:
            tags |= {f"{verdict.on} accuracy".replace(" ", "_"): f"{verdict.accuracy:.2f}"}
            tags |= {"judged_on": f"{verdict.on} {verdict.images}"}
        tags |= {"rejected": reasons} if refused else {}
        tags |= {"forced": verdict.forced} if verdict.forced else {}
        described = verdict.description(self.found, path)
        versions.describe(self.store, self.name, version, described, tags, gone=() if refused else ("rejected",))

    def _version(self, version: str) -> FoundModel:
        return models.find_model(self.store, f"models:/{self.name}/{version}")

    def _evaluation(self, found: FoundModel) -> Evaluation:
        """The recorded evaluation of the model; without one it is evaluated now, which is recorded and counted."""
        if recorded := evaluations.read(self.store, found, self.images):
            return recorded
        if self.images.split == "validation":
            raise ModelError(
                f"{found.run_name} has recorded no answers to validation images (--validation-size 0?), so it cannot "
                "be judged on them"
            )
        say(f"{found.run_name} ({found.weights} weights) has not been evaluated yet: evaluating")
        outcome = evaluate_model(self.store, found, dataset=self.dataset, data_dir=self.data_dir)
        return Evaluation(outcome.test_digest, outcome.labels, outcome.probabilities.argmax(1))
