"""Score a logged model on the test set, and write the result to the run that the model came from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cifar_mlflow import process_state
from cifar_mlflow.analysis import classification, plots
from cifar_mlflow.analysis.statistics import wilson_interval
from cifar_mlflow.config.rules import resolve, resolve_moved
from cifar_mlflow.errors import DataError
from cifar_mlflow.jobs.listener import bar, warn
from cifar_mlflow.jobs.training import data
from cifar_mlflow.tables import csv_lines
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import models
from cifar_mlflow.tracking.reading.models import FoundModel
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import looks
from cifar_mlflow.tracking.writing.recorder import Recorder, mark_job

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset

GALLERY_IMAGES, GALLERY_PAIRS = 24, 4
PER_CLASS = ("class", "precision", "recall", "images")


@dataclass(frozen=True)
class EvaluateOutcome:
    """A model's score on a test set, with the 95% Wilson interval of its accuracy (per cent).

    `labels` int64 (n) and `probabilities` float32 (n, classes) are by image; `test_digest` names the images.
    """

    model_uri: str
    run_id: str
    dataset: str
    test_digest: str
    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    score: classification.Score
    interval: tuple[float, float]
    metrics: dict[str, float]
    balanced_accuracy: float | None = None
    """The mean recall, per cent, where the classes are unequal; else None: it would say the same as the accuracy."""

    def rows(self) -> list[dict[str, object]]:
        """One row a class: its name, precision and recall (per cent, None where undefined) and images."""
        precision, recall = (
            [None if np.isnan(rate) else round(rate, 4) for rate in rates.tolist()]
            for rates in (self.score.precision, self.score.recall)
        )
        columns = (self.classes, precision, recall, self.score.confusion.sum(1).tolist())
        return [dict(zip(PER_CLASS, row, strict=True)) for row in zip(*columns, strict=True)]


@process_state.preserved()
def evaluate(
    model: str, *, weights: str = "last", dataset: str | None = None, data_dir: str | None = None, views: int = 1
) -> EvaluateOutcome:
    """Scores `model` on the test set of its own dataset, or of another `dataset` with the same classes.

    Of the user's own `dataset` only the test images are read. `data_dir` is where the model's own data are now
    (`config.paths.moved`). `views` is how often it sees each image (`learning.evaluation.predict`); with more than one
    the metrics have names of their own, as in test_6_views_accuracy.

    Raises:
        ModelError: there is no such model.
        DataError: the data are not those that the model was trained on, or the test set overlaps them.
        TrackingError: the store cannot be read or written.
    """
    store = tracking_store.connect()
    mark_job(store)
    found = models.find_model(store, model, weights)
    return evaluate_model(store, found, dataset=dataset, data_dir=data_dir, views=views)


def evaluate_model(
    store: Store,
    found: FoundModel,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    views: int = 1,
    trained_on: Dataset | None = None,
) -> EvaluateOutcome:
    """As `evaluate`, of a model that was found; `trained_on` are its data, if they were read already."""
    predictor = models.load_model(found.uri, found.tags)

    from cifar_mlflow.learning import evaluation

    if trained_on is None:
        config = resolve_moved(found.config, data_dir)
        trained_on = data.load_recorded(config, found.dataset_digest, found.run_id)
    scored = (
        trained_on if dataset is None else read_test_set(dataset, trained_on.classes, trained_on.image_shape, data_dir)
    )
    _check_test_set(scored, trained_on)
    if views > 1 and found.config.augmentation == "none":
        warn(f"--views {views} shows mirrored images, and the model was trained without any (augmentation none)")
    with bar(len(scored.test), "evaluating", " images") as update:
        probabilities = evaluation.predict(predictor, scored.test, update, views=views)

    labels = scored.test.labels.numpy()
    score = classification.score(labels, probabilities)
    low, high = (100 * bound for bound in wilson_interval(score.correct, score.images))
    prefix = found.test_prefix(scored.name if dataset is not None else None)
    prefix += f"_{views}_views" if views > 1 else ""
    measured = {
        "accuracy": score.accuracy,
        "balanced_accuracy": float(np.nanmean(score.recall)),
        "loss": score.loss,
        "accuracy_low": low,
        "accuracy_high": high,
        "calibration_error": score.calibration_error,
        "min_class_recall": float(np.nanmin(score.recall)),
    }
    outcome = EvaluateOutcome(
        model_uri=found.uri,
        run_id=found.run_id,
        dataset=scored.name,
        test_digest=scored.test_digest,
        classes=scored.classes,
        labels=labels,
        probabilities=probabilities,
        score=score,
        interval=(low, high),
        metrics={f"{prefix}_{name}": value for name, value in measured.items()},
        balanced_accuracy=measured["balanced_accuracy"] if data.unequal_classes(scored) else None,
    )
    run = Recorder(store, found.run_id, found.experiment_id, found.run_name)
    looks.add(store, found.run_id)
    _record(run, outcome, scored, prefix)
    run.set_tags({f"{prefix}_digest": scored.test_digest})
    return outcome


def read_test_set(
    dataset: str, classes: tuple[str, ...], image_shape: tuple[int, int, int], data_dir: str | None = None
) -> Dataset:
    """The `dataset` by whose test images models of these `classes` are scored; the user's own needs no other images.

    Images of a folder are fitted to `image_shape`. DataError if it is missing or damaged.
    """
    from cifar_mlflow.learning.data import datasets

    config = resolve({"dataset": dataset, **({"data_dir": data_dir} if data_dir else {})}, "options")
    if config.is_folder:
        return data.load_test_folder(config.dataset, classes, image_shape)
    is_file = config.dataset.endswith(".npz")
    return datasets.load_test_set(config.dataset, classes) if is_file else data.load(config)


def _check_test_set(scored: Dataset, trained_on: Dataset) -> None:
    from cifar_mlflow.learning.data import datasets

    if (scored.classes, scored.image_shape) != (trained_on.classes, trained_on.image_shape):
        raise DataError(
            f"{scored.source} has images of {scored.image_shape} and classes {', '.join(scored.classes[:12])}; "
            f"the model takes {trained_on.image_shape} and {', '.join(trained_on.classes[:12])}"
        )
    if shared := datasets.overlap(scored.test, trained_on.train):
        raise DataError(
            f"{shared} of the {len(scored.test)} test images of {scored.source} were trained on; "
            "an accuracy on them would say nothing"
        )


def _record(run: Recorder, outcome: EvaluateOutcome, scored: Dataset, prefix: str) -> None:
    """Writes the files, the metrics and the dataset to the run."""
    labels, probabilities, score = outcome.labels, outcome.probabilities, outcome.score
    predicted, names = probabilities.argmax(1), np.array(scored.classes)

    def shown(chosen: np.ndarray, title: str) -> bytes:
        return plots.gallery(
            scored.test.pixels.numpy()[chosen],
            list(names[labels[chosen]]),
            list(names[predicted[chosen]]),
            list(100 * probabilities[chosen].max(1)),
            f"{run.run_name}: {title}",
        )

    worst = classification.worst_mistakes(labels, probabilities, GALLERY_IMAGES)
    confused = classification.worst_by_pair(labels, probabilities, GALLERY_PAIRS, GALLERY_IMAGES // GALLERY_PAIRS)
    predictions = io.BytesIO()
    np.savez_compressed(predictions, label=labels, predicted=predicted, probabilities=probabilities)
    title = f"{run.run_name}: {scored.name} test, {score.accuracy:.2f}% of {score.images:,} images"
    run.log_files(
        {
            f"{prefix}_confusion_matrix.png": plots.confusion_matrix(score.confusion, scored.classes, title),
            f"{prefix}_mistakes.png": shown(worst, f"the most confident mistakes of {score.images - score.correct:,}"),
            f"{prefix}_confused.png": shown(
                confused, "the classes that are most often confused, the worst of each pair"
            ),
            f"{prefix}_predictions.npz": predictions.getvalue(),
            f"{prefix}_per_class.csv": per_class_csv(outcome).encode(),
        }
    )
    run.log_metrics(outcome.metrics, model_id=outcome.model_uri.removeprefix("models:/"))
    run.log_dataset(scored.name, scored.test_digest, scored.source, {"test": len(scored.test)}, "evaluation")


def per_class_csv(outcome: EvaluateOutcome) -> str:
    """The rows of the outcome as CSV with a header line."""
    return csv_lines([PER_CLASS, *(row.values() for row in outcome.rows())])
