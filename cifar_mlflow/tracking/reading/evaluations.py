"""What a model has answered image by image, recorded by its training or by `evaluate`, read back."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_mlflow.errors import ModelError
from cifar_mlflow.records import Predictions
from cifar_mlflow.tracking.reading import runs
from cifar_mlflow.tracking.reading.models import FoundModel
from cifar_mlflow.tracking.store import Store


@dataclass(frozen=True)
class Evaluation:
    """Answers to the test set that `test_digest` names: `labels` int64 (n), `probabilities` float32 (n, classes)."""

    test_digest: str
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Of each image, whether the answer was right; bool (n)."""
        return np.asarray(self.probabilities.argmax(1) == self.labels)


def read(store: Store, found: FoundModel) -> Evaluation | None:
    """The recorded evaluation of the model on its own test set, None if there is none; ModelError if it is damaged."""
    path, remedy = f"{found.test_prefix}_predictions.npz", f"; `cifar-mlflow evaluate {found.run_id}` writes them anew"
    arrays = _arrays(store, found.run_id, path, {"label": 1, "probabilities": 2}, remedy)
    digest = runs.find(store, found.run_id).data.tags.get(f"{found.test_prefix}_digest")
    return None if arrays is None or digest is None else Evaluation(digest, *arrays)


def read_validation(store: Store, run_id: str) -> Predictions | None:
    """The answers of the run's last-epoch model to the validation images, None without; ModelError if damaged."""
    arrays = _arrays(store, run_id, "val_predictions.npz", {"index": 1, "label": 1, "predicted": 1})
    return None if arrays is None else Predictions(*(array.astype(np.int64) for array in arrays))


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
