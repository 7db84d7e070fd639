"""How tests read a folder of images."""

import os

import pytest

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import datasets, image_folder


def load(root, **values):
    return datasets.load(resolve({"dataset": f"{root}/", **values}))


def told(root, **values) -> str:
    with pytest.raises(DataError) as raised:
        load(root, **values)
    return str(raised.value)


def names_of(root, **values) -> dict[str, set[str]]:
    """The file names of each part."""
    found = image_folder.read(resolve({"dataset": f"{root}/", **values}), datasets.no_bar)
    return {part: {os.path.basename(found.names[row]) for row in rows} for part, rows in found.rows.items()}
