"""Image files, and trainings on the tiny dataset."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training


@pytest.fixture
def save(work):
    """Writes an image file; returns its path."""

    def write(name, content: Image.Image | np.ndarray, **options):
        image = content if isinstance(content, Image.Image) else Image.fromarray(content)
        image.save(work / name, **options)
        return work / name

    return write


@pytest.fixture
def prepare(tiny):
    """A function that makes a training on the tiny dataset."""

    def make(on_step=lambda images, steps: None, dataset=None, **values):
        settings = {"dataset": str(tiny), "epochs": 2, "batch_size": 8, "precision": "float32", **values}
        config = resolve(settings)
        return Training(config, dataset or datasets.load(config), on_step=on_step)

    return make
