"""What a model has answered image by image, recorded by its training or by `evaluate`, read back."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_mlflow.errors import ModelError
from cifar_mlflow.records import CALIBRATED, Predictions
from cifar_mlflow.tracking.reading import runs
from cifar_mlflow.tracking.reading.models import FoundModel
from cifar_mlflow.tracking.store import Store


@dataclass(frozen=True)
class ImageSet:
    """The images on which models are judged: of the `split` (test or validation) of the data that each was trained on.

    With `dataset`, the name of another one, they are its test images, those with the `digest`.
    """

    split: str = "test"
    dataset: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        return f"{self.dataset} {self.split}" if self.dataset else self.split


@dataclass(frozen=True)
class Evaluation:
    """Answers to the images that `digest` names, in their order: `labels` and `predicted` classes, int64 (n)."""

    digest: str
    labels: np.ndarray
    predicted: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Of each image, whether the answer was right; bool (n)."""
        return np.asarray(self.predicted == self.labels)

    @property
    def accuracy(self) -> float:
        """In per cent."""
        return float(100 * self.correct.mean())


def read(store: Store, found: FoundModel, images: ImageSet) -> Evaluation | None:
    """The recorded answers of the model to the images, None if there are none; ModelError if they are damaged.

    Answers to the validation images are recorded by the training, of the last epoch's weights alone.
    """
    if images.split == "validation":
        if found.weights != "last":
            of_these = found.weights in CALIBRATED.values()
            what = "the temperature of its" if of_these else "its"
            was = "was fitted" if of_these else "were chosen"
            raise ModelError(
                f"{found.run_name}: {what} {found.weights} weights {was} on the validation images, so they are not "
                "judged on them; take the last ones, or judge on the test images"
            )
        if (answers := read_validation(store, found.run_id)) is None:
            return None
        # The digest covers the split, so the same one means the same images in the same order.
        return Evaluation(found.dataset_digest, answers.label, answers.predicted)
    prefix = found.test_prefix(images.dataset)
    remedy = f"; `cifar-mlflow evaluate {found.run_id}` writes them anew"
    arrays = _arrays(store, found.run_id, f"{prefix}_predictions.npz", {"label": 1, "predicted": 1}, remedy)
    digest = found.run_tags.get(f"{prefix}_digest")
    if arrays is None or digest is None or images.digest not in (None, digest):
        return None
    return Evaluation(digest, *arrays)


def read_validation(store: Store, run_id: str) -> Predictions | None:
    """The answers of the run's last-epoch model to the validation images, None without; ModelError if damaged."""
    arrays = _arrays(store, run_id, "val_predictions.npz", {"index": 1, "label": 1, "predicted": 1})
    return None if arrays is None else Predictions(*(array.astype(np.int64) for array in arrays))


def read_probabilities(store: Store, run_id: str, path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Index, label (n) and probabilities (n, classes) of the run's answers in its artifact `path`; None without it.

    ModelError if they are damaged.
    """
    arrays = _arrays(store, run_id, path, {"index": 1, "label": 1, "probabilities": 2})
    return None if arrays is None else (arrays[0], arrays[1], arrays[2])


def _arrays(
    store: Store, run_id: str, path: str, dimensions: dict[str, int], remedy: str = ""
) -> list[np.ndarray[Any, Any]] | None:
    """The arrays of these names and numbers of dimensions, of one length, in the run's artifact; None without it."""
    content = runs.read_artifact(store, run_id, path)
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = [file[name] for name in dimensions]
        if [array.ndim for array in arrays] != [*dimensions.values()] or len({len(array) for array in arrays}) != 1:
            raise ValueError(f"shapes {', '.join(str(array.shape) for array in arrays)}")
    except Exception as error:  # the errors of numpy, zipfile and zlib share no base class
        raise ModelError(f"the predictions recorded at the run {run_id} are damaged ({error}){remedy}") from None
    return arrays
