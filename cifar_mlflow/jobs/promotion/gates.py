"""Carrying out the gates of a promotion: what is looked at, and in which order."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_mlflow.analysis import classification, gates
from cifar_mlflow.analysis.gates import Gate
from cifar_mlflow.errors import ModelError
from cifar_mlflow.text import count
from cifar_mlflow.tracking.reading.evaluations import Evaluation, ImageSet
from cifar_mlflow.tracking.reading.models import FoundModel
from cifar_mlflow.tracking.registry import smoke
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import digests, model_files

SAFETY = ("integrity", "smoke")  # the gates before which a model is not loaded here


@dataclass(frozen=True)
class Thresholds:
    """What is asked of a model. Accuracy and recall are per cent, None where no threshold is set.

    `require` is better or not-worse (than the best champion so far), `significance` the level of McNemar's test, or of
    the interval if a `margin` (points by which the model may be worse) is given.
    """

    min_accuracy: float | None = None
    min_class_recall: float | None = None
    require: str = "not-worse"
    significance: float = 0.05
    margin: float | None = None


def of_the_files(found: FoundModel, directory: Path, store: Store) -> list[Gate]:
    """The gates on the record and on the files, which lie in `directory`.

    Files that are not those that were logged are not loaded, here or in any process.
    """
    described: dict[str, Any] = {}
    try:
        described = model_files.describe(directory)
        suspicion = smoke.code_asked_for(described)
    except ModelError as error:
        suspicion = str(error)
    result = [_recorded(found, described), _integrity(found, directory)]
    if not result[-1].passed:
        suspicion = "the files are not those that were logged"
    if suspicion:
        return [*result, Gate("smoke", gates.SMOKE, f"not loaded: {suspicion}", False)]
    try:
        expected = digests.read_example_answer(directory)
    except (OSError, ValueError, TypeError) as error:
        return [*result, Gate("smoke", gates.SMOKE, f"no recorded answer to compare with ({error})", False)]
    ran = smoke.run(directory, store.uri)
    if ran.probabilities is None:
        return [*result, Gate("smoke", gates.SMOKE, f"a fresh process could not use it: {ran.fault}", False)]
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6
    return [*result, gates.smoke(expected, ran.probabilities, ran.seconds, size)]


def of_the_images(
    directory: Path,
    evaluation: Evaluation | None,
    champion: Evaluation | None,
    thresholds: Thresholds,
    images: ImageSet,
    judged_before: int,
) -> list[Gate]:
    """The gates on the answers to the images; `champion` is its evaluation, if there is one to compare with.

    `judged_before` is how many other models of the name were judged on them.
    """
    required = f"the {images.name} images that the champion was judged on" if champion else f"{images.name} images"
    if evaluation is None:
        return [Gate("evaluation", required, "not evaluated: the model is not safe to load", False)]
    same = champion is None or champion.digest == evaluation.digest
    other = "" if same or champion is None else f", but the champion on that with the digest {champion.digest[:8]}"
    looked = f"; {count(judged_before, 'other model')} of this name judged on them before" if judged_before else ""
    observed = f"{len(evaluation.labels):,} images with the digest {evaluation.digest[:8]}{other}{looked}"
    metadata = model_files.describe(directory).get("metadata", {})
    highest = int(max(evaluation.labels.max(), evaluation.predicted.max()))
    classes = metadata.get("classes") or list(map(str, range(highest + 1)))
    confusion = classification.confusion_matrix(evaluation.labels, evaluation.predicted, len(classes))
    return [
        Gate("evaluation", required, observed, same),
        gates.accuracy(evaluation.accuracy, thresholds.min_accuracy),
        gates.class_recall(classification.recall(confusion), classes, thresholds.min_class_recall),
    ]


def _recorded(found: FoundModel, described: dict[str, Any]) -> Gate:
    required = "a finished run with configuration and dataset digest; a model with signature and input example"
    faults = [] if found.run_status == "FINISHED" else [f"the run is {found.run_status}"]
    faults += [] if described.get("signature") else ["the model has no signature"]
    faults += [] if described.get("saved_input_example_info") else ["the model has no input example"]
    observed = f"{found.run_name}, data {found.dataset_digest[:8]}, {found.weights} weights"
    return Gate("record", required, ", ".join(faults) or observed, not faults)


def _integrity(found: FoundModel, directory: Path) -> Gate:
    required = "every file as it was logged, by its SHA-256"
    differences = digests.differences(directory, found.tags)
    if differences is None:
        return Gate("integrity", required, "no digests were recorded when it was logged", False)
    files = sum(1 for path in directory.rglob("*") if path.is_file() and path.name not in digests.WRITTEN_ON_LOADING)
    return Gate(
        "integrity", required, ", ".join(differences) or f"{count(files, 'file')}, all unchanged", not differences
    )
