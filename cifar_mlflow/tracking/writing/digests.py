"""Whether a logged model's files are still those that were logged."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

TAG = "mlflow.cifar_mlflow.sha256"  # MLflow's UI does not show tags that begin with mlflow.
EXAMPLE_ANSWER = "example_probabilities.json"
# MLflow writes this file beside the others when it loads a registered model from a local directory.
WRITTEN_ON_LOADING = {"registered_model_meta"}


def write_example_answer(directory: Path, probabilities: np.ndarray) -> None:
    """What the training's own network answers to the input example, (n, classes), into the model's directory."""
    (directory / EXAMPLE_ANSWER).write_text(json.dumps(probabilities.tolist()), encoding="utf-8")


def read_example_answer(directory: Path) -> np.ndarray:
    """The probabilities that `write_example_answer` wrote; OSError or ValueError if there are none."""
    return np.array(json.loads((directory / EXAMPLE_ANSWER).read_text(encoding="utf-8")), dtype=np.float32)


def tags(directory: Path) -> dict[str, str]:
    """The logged model's tag that records the digests of its files."""
    return {TAG: json.dumps(_digests(directory), sort_keys=True)}


def differences(directory: Path, recorded: Mapping[str, str]) -> list[str] | None:
    """What is wrong with the files in `directory`, by the model's tags; None if no digests were recorded."""
    if TAG not in recorded:
        return None
    wanted, found = json.loads(recorded[TAG]), _digests(directory)
    faults = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    faults += [f"{name} was added" for name in found.keys() - wanted.keys()]
    faults += [f"{name} was changed" for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    return sorted(faults)


def _digests(directory: Path) -> dict[str, str]:
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in files.keys() - WRITTEN_ON_LOADING}
