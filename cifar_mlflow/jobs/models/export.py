"""Export a logged model to a format that other programs run, proven by its own recorded example."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_mlflow import process_state
from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import models
from cifar_mlflow.tracking.registry import smoke
from cifar_mlflow.tracking.writing import digests, model_files
from cifar_mlflow.tracking.writing.recorder import mark_job

TOLERANCE = 1e-4  # of a probability, as the smoke gate has it
FORMATS = ("onnx",)


@dataclass(frozen=True)
class ExportOutcome:
    """The `content` of the file, and by how much a probability of the recorded example differs in it at most."""

    model_uri: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    difference: float
    content: bytes


@process_state.preserved()
def export(model: str, *, weights: str = "last", form: str = "onnx") -> ExportOutcome:
    """The model in the format `form`, as bytes; it was loaded and has answered its example in a process of its own.

    It takes uint8 images (n, height, width, channels), any number of them, and answers probabilities; the names of the
    classes and what it was made of are in its metadata.

    Raises:
        ConfigurationError: there is no such format, or the packages for it are not installed.
        ModelError: there is no such model, it has no form in that format, or it answers something else there.
        TrackingError: the store cannot be read.
    """
    if form not in FORMATS:
        raise ConfigurationError(f"--format: {form} is refused: must be {' or '.join(FORMATS)}", "options")
    store = tracking_store.connect()
    mark_job(store)
    found = models.find_loadable(store, model, weights)
    interface = models.model_interface(found.uri)
    program = models.load_model(found.uri, found.tags)
    with tempfile.TemporaryDirectory() as temporary:
        directory = models.download(found.uri, Path(temporary))
        try:
            example, expected = model_files.read_example(directory), digests.read_example_answer(directory)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{found.uri} has no recorded example to prove an export by ({error})") from None

    import torch

    from cifar_mlflow.learning import export as exporting

    about = {"model": found.uri, "classes": json.dumps(interface.classes, ensure_ascii=False)}
    try:
        content = exporting.onnx_file(program, torch.from_numpy(example), about)
    except ImportError as error:
        raise ConfigurationError(
            f"--format onnx needs the package {error.name}: pip install 'cifar-mlflow[onnx]'", "environment"
        ) from None
    except ValueError as error:
        raise ModelError(f"{found.uri} cannot be exported to ONNX: {error}") from None
    ran = smoke.run_onnx(content, example)
    if ran.probabilities is None:
        raise ModelError(f"onnxruntime cannot use what {found.uri} became in ONNX: {ran.fault}")
    same_shape = ran.probabilities.shape == expected.shape
    difference = float(np.abs(ran.probabilities - expected).max()) if same_shape else np.inf
    if not difference <= TOLERANCE:
        raise ModelError(
            f"in ONNX {found.uri} answers its example with probabilities that differ by {difference:.2g} from the "
            f"recorded ones; at most {TOLERANCE:g} is allowed, so nothing is written"
        )
    return ExportOutcome(found.uri, interface.classes, interface.image_shape, difference, content)
