"""Models from Python: scored, asked, promoted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cifar_mlflow.directories import write_whole
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.interface.call import Weights, called, checked, refused
from cifar_mlflow.interface.results import Run, Sweep, name_of

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from cifar_mlflow.jobs.evaluate import EvaluateOutcome
    from cifar_mlflow.jobs.history import ModelHistory
    from cifar_mlflow.jobs.models.calibrate import CalibrateOutcome
    from cifar_mlflow.jobs.models.export import ExportOutcome
    from cifar_mlflow.jobs.models.mislabelled import MislabelledOutcome
    from cifar_mlflow.jobs.predict import LoadedModel, Prediction
    from cifar_mlflow.jobs.promotion.verdict import PromotionVerdict
    from cifar_mlflow.learning.data.image_files import Skipped


def evaluate(
    model: str | Run | Sweep,
    *,
    weights: str = "last",
    dataset: str | Path | None = None,
    data_dir: str | Path | None = None,
    views: int = 1,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> EvaluateOutcome:
    """Scores a model on the test set, and writes the result to the run that trained it.

    `model` is a run (as `train` returns it, its id, a beginning of it or its name), a sweep for its winner, NAME@ALIAS,
    models:/NAME/VERSION or models:/m-...; the rest are the options of `cifar-mlflow evaluate`.

    >>> cm.evaluate(run).score.images
    364

    Raises:
        ModelError: there is no such model.
        DataError: the data are not those that the model was trained on, or the test set overlaps them.
        TrackingError: the store cannot be used.
    """
    from cifar_mlflow.jobs.evaluate import evaluate as job

    with called(tracking_uri, progress):
        return checked(job, weights=Weights, views=Literal[1, 2, 6])(
            name_of(model), weights=weights, dataset=dataset, data_dir=data_dir, views=views
        )


def load(model: str | Run | Sweep, *, weights: str = "last", tracking_uri: str | Path | None = None) -> LoadedModel:
    """A model to be called with uint8 images (n, height, width, channels); it answers float32 (n, classes).

    It has `classes` and `image_shape`, and is named as in `evaluate`. Its run need not be there any more.

    >>> model = cm.load(run.name)
    >>> model.image_shape
    (32, 32, 3)
    >>> model(np.zeros((2, 32, 32, 3), dtype=np.uint8)).shape
    (2, 10)

    Raises:
        ModelError: there is no such model, or its files are not those that were logged.
        TrackingError: the store cannot be read.
    """
    from cifar_mlflow.jobs.predict import load as job

    with called(tracking_uri, progress=False):
        return checked(job, weights=Weights)(name_of(model), weights=weights)


def predict(
    model: str | Run | Sweep,
    images: str | Path | np.ndarray | Sequence[str | Path | Image],
    *,
    weights: str = "last",
    top: int = 1,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> list[Prediction | Skipped]:
    """The `top` most probable classes of each image, in their order.

    `images` are paths (of files, directories or .npz files), images of Pillow's, or an array uint8 (n, height, width,
    channels) of the model's size. What is no image of the model's size is made one, as `cifar-mlflow predict` does; a
    file that cannot be read is a Skipped in the list.

    >>> told = cm.predict(run.id, np.zeros((2, 32, 32, 3), dtype=np.uint8), top=3)
    >>> [len(each.ranking) for each in told]
    [3, 3]

    Raises:
        ConfigurationError: a path that does not exist, or a `top` beyond the classes.
        ModelError: there is no such model, or the array is not of its shape.
        TrackingError: the store cannot be read.
    """
    from cifar_mlflow.jobs import predict as job

    with called(tracking_uri, progress):
        given = [images] if isinstance(images, str | Path) else _listed(images)
        paths = [str(each) for each in given if isinstance(each, str | Path)]
        if len(paths) == len(given):
            return list(checked(job.predict, weights=Weights)(name_of(model), paths, weights=weights, top=top).results)
        pictures = [each for each in given if not isinstance(each, str | Path)]
        if paths:
            raise ConfigurationError("images: give either paths or images, not both", "arguments")
        return checked(job.predict_images, weights=Weights)(name_of(model), pictures, weights=weights, top=top)


def _listed(images: Any) -> list[Any]:
    kinds = "it must be paths, images of Pillow's, or an array of them (n, height, width, channels)"
    # Of a mapping, as of a DataFrame, the names alone would be taken.
    if isinstance(images, bytes) or hasattr(images, "keys") or not hasattr(images, "__iter__"):
        raise refused("images", type(images).__name__, kinds)
    return list(images)


def calibrate(
    model: str | Run | Sweep,
    *,
    weights: str = "last",
    data_dir: str | Path | None = None,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> CalibrateOutcome:
    """Fits one temperature on the validation images, and logs a model with it in the same run: `weights="calibrated"`.

    `model` is named as in `evaluate`, `weights` are last or best, `data_dir` says where the data are now.

    >>> calibrated = cm.calibrate(run.id)
    >>> calibrated.changed
    0
    >>> cm.evaluate(run.id, weights="calibrated").model_uri == calibrated.model_uri
    True

    Raises:
        ModelError: there is no such model, it is calibrated already, or no temperature is the best.
        DataError: the data are not those that the model was trained on.
        TrackingError: the store cannot be used.
    """
    from cifar_mlflow.jobs.models.calibrate import calibrate as job

    with called(tracking_uri, progress):
        return checked(job, weights=Literal["last", "best"])(name_of(model), weights=weights, data_dir=data_dir)


def export(
    model: str | Run | Sweep, path: str | Path, *, weights: str = "last", tracking_uri: str | Path | None = None
) -> ExportOutcome:
    """Writes a model as an ONNX file, whole or not at all; onnxruntime has answered the recorded example with it.

    `model` is named as in `evaluate`. The packages of `cifar-mlflow[onnx]` are needed.

    >>> cm.export(run.id, "model.onnx").difference < 1e-4
    True

    Raises:
        ConfigurationError: the file cannot be written, or the packages are not installed.
        ModelError: there is no such model, or it cannot be exported.
        TrackingError: the store cannot be read.
    """
    from cifar_mlflow.jobs.models.export import export as job

    with called(tracking_uri, progress=False):
        outcome = checked(job, weights=Weights)(name_of(model), weights=weights)
        try:
            write_whole(Path(path), outcome.content)
        except OSError as error:
            raise ConfigurationError(f"path: {path} cannot be written: {error.strerror}", "arguments") from None
        return outcome


def mislabelled(
    sweep: str | Sweep,
    *,
    data_dir: str | Path | None = None,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> MislabelledOutcome:
    """The training images whose labels are likely to be wrong, the most suspicious first: its `suspects`.

    `sweep` has folds; `data_dir` says where the data are now.

    >>> base = {"dataset": "digits", "epochs": 1, "scheduler": "none"}
    >>> spec = {"name": "folded", "base": base, "space": {"activation": ["relu"]}, "folds": 2, "repeats": 2}
    >>> len(cm.mislabelled(cm.sweep(spec)).suspects)
    1433

    Raises:
        ModelError: there is no such sweep, or it has no folds.
        DataError: the data are not those that the sweep was trained on.
        TrackingError: the store cannot be used.
    """
    from cifar_mlflow.jobs.models.mislabelled import mislabelled as job

    with called(tracking_uri, progress):
        return checked(job)(name_of(sweep), data_dir=data_dir)


def promote(
    model: str | Run | Sweep | None = None,
    *,
    best_of: str | Sweep | None = None,
    weights: str = "last",
    name: str | None = None,
    alias: str = "champion",
    min_accuracy: float | None = None,
    min_class_recall: float | None = None,
    require: str = "not-worse",
    significance: float = 0.05,
    margin: float | None = None,
    on: str = "test",
    dataset: str | Path | None = None,
    force: str | None = None,
    dry_run: bool = False,
    data_dir: str | Path | None = None,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> PromotionVerdict:
    """Registers a model and moves the alias to it, if every gate lets it through; look at the result's `status`.

    The arguments are the options of `cifar-mlflow promote`: accuracies and recall in per cent, `margin` in points.

    >>> cm.promote(run).status
    'promoted'

    Raises:
        CifarMlflowError: as in `jobs.promote.promote`.
    """
    from cifar_mlflow.jobs.promote import promote as job
    from cifar_mlflow.jobs.promotion.gates import Thresholds

    with called(tracking_uri, progress):
        thresholds = checked(Thresholds)(
            min_accuracy=min_accuracy,
            min_class_recall=min_class_recall,
            require=require,
            significance=significance,
            margin=margin,
        )
        return checked(job, weights=Weights)(
            name_of(model),
            best_of=name_of(best_of),
            weights=weights,
            name=name,
            alias=alias,
            thresholds=thresholds,
            force=force,
            dry_run=dry_run,
            on=on,
            dataset=dataset,
            data_dir=data_dir,
        )


def rollback(
    name: str, *, alias: str = "champion", reason: str = "", tracking_uri: str | Path | None = None
) -> tuple[str, str | None]:
    """Moves the alias back; returns the version that holds it now, and the one that did until now.

    >>> verdict = cm.promote(best_of="two", force="to see it taken back")
    >>> cm.rollback("digits")
    ('1', '2')

    Raises:
        PromotionRefused: there is nothing to roll back to.
        CifarMlflowError: as in `jobs.rollback.rollback`.
    """
    from cifar_mlflow.jobs.rollback import rollback as job

    with called(tracking_uri, progress=False):
        return checked(job)(name, alias=alias, reason=reason)


def history(name: str, *, tracking_uri: str | Path | None = None) -> ModelHistory:
    """The versions of a registered model with their verdicts, and the moves of its aliases.

    >>> [version.verdict for version in cm.history("digits").versions]
    ['promoted']

    Raises:
        ModelError: there is no such registered model.
        TrackingError: the store cannot be read.
    """
    from cifar_mlflow.jobs.history import history as job

    with called(tracking_uri, progress=False):
        return checked(job)(name)
