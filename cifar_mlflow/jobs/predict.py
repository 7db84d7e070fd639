"""Say what a logged model sees in images; needs no training data."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from cifar_mlflow import process_state
from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.jobs.listener import bar
from cifar_mlflow.learning.data import image_files
from cifar_mlflow.learning.data.image_files import DecodedImage, Skipped
from cifar_mlflow.tables import csv_lines
from cifar_mlflow.text import printable
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


@dataclass(frozen=True)
class LoadedModel:
    """A model that was loaded: call it with uint8 images (n, height, width, channels) of its `image_shape`.

    The answer is float32 (n, classes), the probability of each class.
    """

    uri: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    program: Callable[..., Any] = field(repr=False)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Raises ModelError if the images are not of the model's kind or shape."""
        import torch

        from cifar_mlflow.learning import evaluation

        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            wanted = f"uint8 of shape (n, {', '.join(map(str, self.image_shape))})"
            raise ModelError(f"{self.uri} takes {wanted}, not {images.dtype} of shape {images.shape}")
        parts = torch.split(torch.from_numpy(np.require(images, requirements=("C", "W"))), evaluation.BATCH)
        none = np.empty((0, len(self.classes)), np.float32)
        return np.concatenate([none, *(evaluation.probabilities(self.program, part) for part in parts if len(part))])

    def rank(self, names: Sequence[str], images: np.ndarray, top: int = 1) -> Iterator[Prediction]:
        """The `top` most probable classes of each image, which `names` name; raises as the call."""
        probabilities = self(images)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        for name, row, best in zip(names, probabilities, order, strict=True):
            # Seven digits are all that a float32 has.
            yield Prediction(name, tuple((self.classes[index], float(f"{row[index]:.7g}")) for index in best))


@process_state.preserved()
def load(model: str, *, weights: str = "last") -> LoadedModel:
    """The model, ready to be asked; no pickle is loaded.

    Raises:
        ModelError: there is no such model, or its files are not those that were logged.
        TrackingError: the store cannot be read.
    """
    store = tracking_store.connect()
    mark_job(store)
    found = models.find_loadable(store, model, weights)
    interface = models.model_interface(found.uri)
    program = models.load_model(found.uri, found.tags)
    return LoadedModel(found.uri, interface.classes, interface.image_shape, program)


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
    files = files_of(images)
    loaded = load(model, weights=weights)
    check_top(loaded, top)
    return PredictOutcome(loaded.uri, loaded.classes, top, _results(loaded, files, top))


def files_of(images: Sequence[str]) -> list[Path]:
    """The files that `predict` reads; raises ConfigurationError as it does."""
    relative = [path for path in images if not Path(path).is_absolute()]
    if relative and os.environ.get("MLFLOW_RUN_ID"):  # the command runs in the project's directory, not in the user's
        faults = [f"{path!r} is relative; give an absolute path under `mlflow run`" for path in relative]
        raise ConfigurationError(faults, "paths of the images")
    return image_files.find(images)


@process_state.preserved()
def predict_images(
    model: str, images: Sequence[Image | np.ndarray], *, weights: str = "last", top: int = 1
) -> list[Prediction | Skipped]:
    """As `predict`, of Pillow's images or arrays uint8 (height, width, channels); their names are numbers."""
    loaded = load(model, weights=weights)
    check_top(loaded, top)
    results: list[Prediction | Skipped] = []
    for number, image in enumerate(images):
        try:
            pixels = image if isinstance(image, np.ndarray) else image_files.fitted(image, loaded.image_shape)
        except ValueError as error:
            results.append(Skipped(str(number), str(error)))
        else:
            results += loaded.rank([str(number)], pixels[None], top)
    return results


def check_top(loaded: LoadedModel, top: int) -> None:
    """Raises ConfigurationError if the model has not that many classes."""
    if not 1 <= top <= len(loaded.classes):
        raise ConfigurationError(f"--top: {top} is refused: the model has {len(loaded.classes)} classes", "options")


def _results(loaded: LoadedModel, files: list[Path], top: int) -> Iterator[Prediction | Skipped]:
    from cifar_mlflow.learning.evaluation import BATCH

    batch: list[DecodedImage] = []
    with bar(sum(map(image_files.count, files)), "predicting", " images") as update:
        for entry in chain.from_iterable(image_files.read(path, loaded.image_shape) for path in files):
            if isinstance(entry, Skipped):
                update(entry.images)
                yield entry
                continue
            update(1)
            batch.append(entry)
            if len(batch) == BATCH:
                yield from _ranked(loaded, batch, top)
                batch = []
        if batch:
            yield from _ranked(loaded, batch, top)


def _ranked(loaded: LoadedModel, batch: list[DecodedImage], top: int) -> Iterator[Prediction]:
    return loaded.rank([each.name for each in batch], np.stack([each.pixels for each in batch]), top)


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
    return "".join(cells) + printable(prediction.image) + "\n"
