"""What `evaluate` has recorded of a model on its own test set, read back."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.reading import models, runs
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
    """The recorded evaluation of the model, or None if there is none.

    Raises:
        ModelError: the recorded predictions are damaged.
    """
    content = runs.read_artifact(store, found.run_id, f"{found.test_prefix}_predictions.npz")
    digest = models.tag(store, found.run_id, f"{found.test_prefix}_digest")
    if content is None or digest is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            labels, probabilities = file["label"], file["probabilities"]
        if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
            raise ValueError(f"shapes {labels.shape} and {probabilities.shape}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"the predictions recorded at the run {found.run_id} are damaged ({error}); "
            f"`cifar-mlflow evaluate {found.run_id}` writes them anew"
        ) from None
    return Evaluation(digest, labels, probabilities)
