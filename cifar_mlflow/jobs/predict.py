"""Say what a logged model sees in images; needs no training data."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cifar_mlflow import process_state
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.listener import bar
from cifar_mlflow.learning.data import image_files
from cifar_mlflow.learning.data.image_files import DecodedImage, Skipped
from cifar_mlflow.tables import csv_lines
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import models
from cifar_mlflow.tracking.writing.recorder import mark_job


@dataclass(frozen=True)
class Prediction:
    """An image's most probable classes, each with its probability (0 to 1), the most probable first."""

    image: str
    ranking: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class PredictOutcome:
    """What a model says of images, in their order. `results` can be read once; each image is decoded when it is due."""

    model_uri: str
    classes: tuple[str, ...]
    top: int
    results: Iterator[Prediction | Skipped]

    @property
    def class_width(self) -> int:
        return max(map(len, ("class", *self.classes)))


@process_state.preserved()
def predict(model: str, images: Sequence[str], *, weights: str = "last", top: int = 1) -> PredictOutcome:
    """The `top` most probable classes of each of `images`: files, directories and .npz files.

    An image that cannot be read is a Skipped among the results. `cifar_mlflow.learning.data.image_files` says how
    images are made to fit the model.

    Raises:
        ConfigurationError: a path that does not exist, a directory without images, or a `top` beyond the classes.
        ModelError: there is no such model.
        TrackingError: the store cannot be read.
    """
    relative = [path for path in images if not Path(path).is_absolute()]
    if relative and os.environ.get("MLFLOW_RUN_ID"):  # the command runs in the project's directory, not in the user's
        faults = [f"{path!r} is relative; give an absolute path under `mlflow run`" for path in relative]
        raise ConfigurationError(faults, "paths of the images")
    files = image_files.find(images)
    store = tracking_store.connect()
    mark_job(store)
    found = models.find_loadable(store, model, weights)
    interface = models.model_interface(store, found.uri)
    if not 1 <= top <= len(interface.classes):
        raise ConfigurationError(f"--top: {top} is refused: the model has {len(interface.classes)} classes", "options")
    predictor = models.load_model(found.uri, found.tags)
    return PredictOutcome(found.uri, interface.classes, top, _results(predictor, interface, files, top))


def _results(
    predictor: Callable[..., Any], interface: models.ModelInterface, files: list[Path], top: int
) -> Iterator[Prediction | Skipped]:
    from cifar_mlflow.learning.evaluation import BATCH

    batch: list[DecodedImage] = []
    with bar(sum(map(image_files.count, files)), "predicting", " images") as update:
        for entry in chain.from_iterable(image_files.read(path, interface.image_shape) for path in files):
            if isinstance(entry, Skipped):
                update(entry.images)
                yield entry
                continue
            update(1)
            batch.append(entry)
            if len(batch) == BATCH:
                yield from _ranked(predictor, batch, interface.classes, top)
                batch = []
        if batch:
            yield from _ranked(predictor, batch, interface.classes, top)


def _ranked(
    predictor: Callable[..., Any], batch: list[DecodedImage], classes: tuple[str, ...], top: int
) -> Iterator[Prediction]:
    import torch

    from cifar_mlflow.learning import evaluation

    probabilities = evaluation.probabilities(predictor, torch.from_numpy(np.stack([each.pixels for each in batch])))
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    for each, row, best in zip(batch, probabilities, order, strict=True):
        # Seven digits are all that a float32 has.
        yield Prediction(each.name, tuple((classes[index], float(f"{row[index]:.7g}")) for index in best))


def heading(outcome: PredictOutcome, form: str) -> str:
    """What stands above the lines of `line`: nothing for json, column names for csv and table."""
    if form == "json":
        return ""
    if form == "csv":
        return "image,rank,class,probability\n"
    return f"{'class':<{outcome.class_width}}  probability  " * outcome.top + "image\n"


def line(outcome: PredictOutcome, prediction: Prediction, form: str) -> str:
    """One prediction as json (one line), csv (a line a rank) or table (one line, probabilities in per cent)."""
    ranking = prediction.ranking
    if form == "json":
        told = [{"class": name, "probability": probability} for name, probability in ranking]
        return json.dumps({"image": prediction.image, "predictions": told}) + "\n"
    if form == "csv":
        image = prediction.image.encode(errors="backslashreplace").decode()
        return csv_lines((image, rank, *guess) for rank, guess in enumerate(ranking, 1))
    # The image comes last, since its name alone may have any length: so no line has to wait for the others.
    cells = [f"{name:<{outcome.class_width}}  {100 * probability:10.1f}%  " for name, probability in ranking]
    return "".join(cells) + shown(prediction.image) + "\n"


def shown(name: str) -> str:
    """The name of a file as a line on a terminal can hold it: line breaks and bytes that are no text are escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
