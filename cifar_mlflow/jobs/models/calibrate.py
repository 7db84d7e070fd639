"""Calibrate a logged model: one temperature, fitted on the validation images, inside a new model of the same run."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifar_mlflow import process_state
from cifar_mlflow.analysis import calibration, classification, plots
from cifar_mlflow.config.rules import resolve_moved
from cifar_mlflow.errors import ModelError
from cifar_mlflow.jobs.evaluate import evaluate_model
from cifar_mlflow.jobs.listener import bar, say, warn
from cifar_mlflow.jobs.training import data, signals
from cifar_mlflow.jobs.training.record import EXAMPLE_IMAGES
from cifar_mlflow.jobs.training.results import model_name
from cifar_mlflow.records import CALIBRATED
from cifar_mlflow.text import count
from cifar_mlflow.tracking import queries
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import evaluations, models
from cifar_mlflow.tracking.reading.evaluations import ImageSet
from cifar_mlflow.tracking.reading.models import FoundModel
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import model_files
from cifar_mlflow.tracking.writing.model_files import ExportedModel
from cifar_mlflow.tracking.writing.recorder import KEY_TAG, Recorder, mark_job

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset


@dataclass(frozen=True)
class CalibrateOutcome:
    """A model and the same with a temperature. Calibration errors and accuracies are per cent, of the named images.

    `changed` counts the validation and test images of which the two say different classes.
    """

    model_uri: str
    calibrates: str
    run_id: str
    weights: str
    temperature: float
    validation_images: int
    validation_calibration_error: float
    calibrated_validation_calibration_error: float
    validation_loss: float
    calibrated_validation_loss: float
    test_calibration_error: float
    calibrated_test_calibration_error: float
    test_accuracy: float
    calibrated_test_accuracy: float
    changed: int


@process_state.preserved()
def calibrate(model: str, *, weights: str = "last", data_dir: str | None = None) -> CalibrateOutcome:
    """Fits one temperature for `model` on the validation images, and logs a model with it beside the old one.

    The new model is one of the same run, called by `weights` calibrated (best_calibrated of the best epoch's). Both are
    evaluated on the test images, each of them once. What was calibrated before is not logged again. `data_dir` is where
    the model's own data are now.

    Raises:
        ModelError: there is no such model, it is calibrated already, or no temperature is the best.
        DataError: the data are not those that the model was trained on.
        TrackingError: the store cannot be read or written.
    """
    store = tracking_store.connect()
    mark_job(store)
    found = models.find_model(store, model, weights)
    if found.weights not in CALIBRATED:
        raise ModelError(f"{found.uri} is calibrated already (temperature {found.tags.get('temperature', 'unknown')})")
    if found.config.trains_on_all:
        raise ModelError(
            f"the run {found.run_id} has no validation images to fit a temperature on (--validation-size 0), and the "
            "test images are none to fit anything on; train it with some"
        )
    program = models.load_model(found.uri, found.tags)

    from cifar_mlflow.learning import evaluation, export

    dataset = data.load_recorded(resolve_moved(found.config, data_dir), found.dataset_digest, found.run_id)
    labels = dataset.validation.labels.numpy()
    try:
        with bar(len(labels), "fitting", " images") as update:
            logits = evaluation.predict(export.without_softmax(program), dataset.validation, update)
        temperature = calibration.fit_temperature(labels, logits)
        calibrated = export.with_temperature(program, temperature)
    except ValueError as fault:
        raise ModelError(f"no temperature can be fitted for {found.uri} on its validation images: {fault}") from None
    before, after = calibration.softmax(logits), evaluation.predict(calibrated, dataset.validation)

    run = Recorder(store, found.run_id, found.experiment_id, found.run_name)
    uri = _logged_before(store, found)
    if uri:
        say(f"{found.run_name} was calibrated before: {uri}")
    else:
        example = dataset.test.first(EXAMPLE_IMAGES)
        name = CALIBRATED[found.weights]
        exported = ExportedModel(
            calibrated,
            name=model_name(found.config, name),
            weights=name,
            epoch=int(found.tags["epoch"]),
            example=example.pixels.numpy(),
            probabilities=evaluation.predict(calibrated, example),
            classes=dataset.classes,
            requirements=export.requirements(),
            temperature=temperature,
        )
        with export.quiet():
            uri = _log(run, exported, found)
    new = models.find_model(store, uri)
    (error, accuracy, answers), (new_error, new_accuracy, new_answers) = (
        _tested(store, each, dataset) for each in (found, new)
    )
    scores = [classification.score(labels, each) for each in (before, after)]
    outcome = CalibrateOutcome(
        model_uri=uri,
        calibrates=found.uri,
        run_id=found.run_id,
        weights=new.weights,
        temperature=temperature,
        validation_images=len(labels),
        validation_calibration_error=scores[0].calibration_error,
        calibrated_validation_calibration_error=scores[1].calibration_error,
        validation_loss=scores[0].loss,
        calibrated_validation_loss=scores[1].loss,
        test_calibration_error=error,
        calibrated_test_calibration_error=new_error,
        test_accuracy=accuracy,
        calibrated_test_accuracy=new_accuracy,
        changed=int((before.argmax(1) != after.argmax(1)).sum() + (answers != new_answers).sum()),
    )
    if outcome.changed:
        warn(
            f"of {count(outcome.changed, 'image')} the calibrated model names another class: two were all but equally "
            "likely"
        )
    _record(run, outcome, found.weights, {"before": before, "after": after}, labels)
    return outcome


def _key(found: FoundModel) -> str:
    return f"calibrated {found.uri}"


def _logged_before(store: Store, found: FoundModel) -> str | None:
    """The calibrated model that was made of this one, if it is complete."""
    logged = queries.models_of_run(store, found.experiment_id, found.run_id)
    complete = [each for each in logged if each.tags.get(KEY_TAG) == _key(found) and str(each.status) == "READY"]
    return f"models:/{complete[0].model_id}" if complete else None


def _log(run: Recorder, exported: ExportedModel, found: FoundModel) -> str:
    prefix = "" if found.weights == "last" else f"{found.weights}_"
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "model"
        model_files.save(exported, directory)
        metrics = {f"{prefix}temperature": float(exported.temperature or 1)}
        with signals.held_back():
            return f"models:/{run.log_saved_model(directory, metrics, int(time.time() * 1000), _key(found))}"


def _tested(store: Store, found: FoundModel, dataset: Dataset) -> tuple[float, float, np.ndarray]:
    """Calibration error and accuracy on the test images, and the answers to them; evaluated if it never was."""
    prefix, metrics = found.test_prefix(), store.client.get_run(found.run_id).data.metrics
    recorded = evaluations.read(store, found, ImageSet("test"))
    if recorded is None or f"{prefix}_calibration_error" not in metrics:
        outcome = evaluate_model(store, found, trained_on=dataset)
        return outcome.score.calibration_error, outcome.score.accuracy, outcome.probabilities.argmax(1)
    return metrics[f"{prefix}_calibration_error"], metrics[f"{prefix}_accuracy"], recorded.predicted


def _record(
    run: Recorder, outcome: CalibrateOutcome, of: str, answers: dict[str, np.ndarray], labels: np.ndarray
) -> None:
    """What was found on the validation images; what on the test images is the evaluations'."""
    prefix = "" if of == "last" else f"{of}_"
    curves = {
        f"{when}, calibration error {classification.score(labels, each).calibration_error:.2f}%": (
            calibration.reliability(labels, each)
        )
        for when, each in answers.items()
    }
    title = f"{run.run_name}: temperature {outcome.temperature:.3f}, {outcome.validation_images:,} validation images"
    run.log_files(
        {
            f"{outcome.weights}.json": json.dumps(vars(outcome), indent=2).encode(),
            f"{outcome.weights}_reliability.png": plots.reliability(curves, title),
        }
    )
    run.log_metrics({f"{prefix}val_calibration_error": outcome.validation_calibration_error})
    after = {f"{outcome.weights}_val_calibration_error": outcome.calibrated_validation_calibration_error}
    run.log_metrics(after, model_id=outcome.model_uri.removeprefix("models:/"))
