"""Trainings on the tiny dataset."""

import pytest

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training


@pytest.fixture
def prepare(tiny):
    def new(weights=None, **values):
        settings = {"dataset": str(tiny), "epochs": 2, "batch_size": 16, "precision": "float32", **values}
        config = resolve(settings)
        return Training(config, datasets.load(config), pretrained=weights)

    return new
