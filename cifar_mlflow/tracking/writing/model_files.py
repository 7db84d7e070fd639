"""A model as files in MLflow's pt2 format: saved without a store, and told later which logged model it is."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.store import LoggedModel
from cifar_mlflow.tracking.writing import digests


@dataclass(frozen=True)
class ExportedModel:
    """A model to log. `module` is a torch module that maps `example` (uint8 images) to class probabilities.

    `weights` is one of `records.WEIGHTS`, `epoch` the one after which they were taken, `probabilities` float32 (n,
    classes) what the training's own network answers to the example, `temperature` that of a calibrated one.
    """

    module: Any
    name: str
    weights: str
    epoch: int
    example: np.ndarray
    probabilities: np.ndarray
    classes: Sequence[str]
    requirements: Sequence[str]
    temperature: float | None = None


def save(exported: ExportedModel, directory: Path) -> None:
    """Writes the model with signature, example, and the answer to it; no pickle is among the files."""
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    _, *image_shape = exported.example.shape
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *image_shape))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(exported.classes)))]),
    )
    mlflow.pytorch.save_model(
        exported.module,
        directory,
        signature=signature,
        input_example=exported.example,
        pip_requirements=list(exported.requirements),
        metadata=_metadata(exported),
        serialization_format="pt2",
    )
    digests.write_example_answer(directory, exported.probabilities)


def save_copy(saved: Path, exported: ExportedModel, directory: Path) -> None:
    """Writes the model as a copy of `saved`, which `save` has written of one with the same weights."""
    from mlflow.models import Model

    shutil.copytree(saved, directory, dirs_exist_ok=True)
    model = Model.load(str(directory))
    model.metadata = _metadata(exported)
    model.save(str(directory / "MLmodel"))


def _metadata(exported: ExportedModel) -> dict[str, Any]:
    about = {"name": exported.name, "weights": exported.weights, "epoch": str(exported.epoch)}
    if exported.temperature is not None:
        about["temperature"] = repr(exported.temperature)
    return {"classes": list(exported.classes), **about}


def about(directory: Path) -> dict[str, str]:
    """The `name`, `weights` and `epoch` of a saved model, and its `temperature` if it is a calibrated one."""
    return dict(describe(directory)["metadata"])


def read_example(directory: Path) -> np.ndarray:
    """The saved model's input example, uint8 (n, height, width, channels); OSError or ValueError if there is none."""
    from mlflow.models import Model

    return np.asarray(Model.load(str(directory)).load_input_example(str(directory)), dtype=np.uint8)


def describe(directory: Path) -> dict[str, Any]:
    """The content of a model's MLmodel file, whoever wrote it; ModelError if there is none, or it cannot be read."""
    try:
        return dict(yaml.safe_load((directory / "MLmodel").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ModelError(f"its MLmodel file cannot be read ({type(error).__name__}: {error})") from None


def assign(directory: Path, logged: LoggedModel) -> None:
    """Writes into the saved model which logged model of which run it is."""
    from mlflow.models import Model

    model = Model.load(str(directory))
    model.artifact_path = logged.artifact_location
    model.model_uuid = model.model_id = logged.model_id
    model.run_id = logged.source_run_id
    model.save(str(directory / "MLmodel"))
