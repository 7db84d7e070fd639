"""Where data are: one spelling of each path, and what was recorded elsewhere found where it is now."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cifar_mlflow.config.training import WEIGHT_FILES, TrainingConfig
from cifar_mlflow.text import PATH_LIMIT, fault, option_name


def is_path(name: str, value: object) -> bool:
    """Whether the field `name` holds a path, if it has this `value`."""
    if not isinstance(value, str) or fault(value, PATH_LIMIT):
        return False
    if name == "pretrained":
        return value.endswith(WEIGHT_FILES) and not value.startswith("models:/")
    if name == "dataset":
        return value.endswith(".npz") or "/" in value or value in ("~", ".", "..")
    return name == "data_dir" and value not in ("", "auto")


def absolute(path: str, directory: str | Path = "") -> str:
    """The one spelling of `path`, which starts at `directory` (default: the current one).

    Links of directories are followed, so that `..` means what it means to the system. The file keeps its own name,
    even if that is a link: caches keep what links lead to under names of their own.
    """
    place, name = os.path.split(os.path.join(directory, os.path.expanduser(path)).rstrip("/"))
    if name in ("", ".", ".."):
        return os.path.realpath(os.path.join(place, name) or "/")
    return os.path.join(os.path.realpath(place), name)


def with_absolute_paths(config: TrainingConfig) -> TrainingConfig:
    """The configuration with each path as it holds in every directory."""
    paths = {name: absolute(value) for name, value in config if is_path(name, value)}
    return config.model_copy(update=paths)


def relative_faults(values: Mapping[str, Any]) -> list[str]:
    """Paths that would mislead: under `mlflow run` the command stands in the project's directory, not in the user's."""
    if not os.environ.get("MLFLOW_RUN_ID"):
        return []
    return [
        f"{option_name(name)}: {value!r} is relative; give an absolute path under `mlflow run`"
        for name, value in values.items()
        if is_path(name, value) and not os.path.isabs(os.path.expanduser(value))
    ]


def moved(config: TrainingConfig, data_dir: str) -> dict[str, str]:
    """The fields by which a recorded configuration finds its data in `data_dir`.

    That is a directory that holds them, or itself the .npz file or the folder of images. What is not there is looked
    for where it was recorded. Its digest must prove that it is the one.
    """
    if data_dir == "auto" or not is_path("dataset", config.dataset):
        return {"data_dir": data_dir}
    recorded = os.path.expanduser(config.dataset)
    if config.is_folder:
        within = os.path.join(data_dir, os.path.basename(recorded))
        found = next(filter(os.path.isdir, (within, data_dir, recorded)), within)
        return {"data_dir": data_dir, "dataset": found}
    here = data_dir if data_dir.endswith(".npz") else os.path.join(data_dir, os.path.basename(recorded))
    is_as_recorded = os.path.isfile(recorded) and not os.path.isfile(here)
    return {"data_dir": data_dir, "dataset": recorded if is_as_recorded else here}
