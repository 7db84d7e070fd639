"""Images, and what a model says of them."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support import tiny_arrays

TEST_IMAGES = tiny_arrays()["x_test"]


@pytest.fixture
def photos(work):
    """A directory of the first six test images of the tiny dataset as PNG, whose classes are 0, 1, 2, 0, 1, 2."""
    (work / "photos").mkdir()
    for index, pixels in enumerate(TEST_IMAGES[:6]):
        Image.fromarray(pixels).save(work / "photos" / f"{index}.png")
    return Path("photos")


@pytest.fixture
def predicted(cifar, trained):
    """A function that predicts with some words; returns what was printed as JSON, a line an image."""

    def predict(*words, model=trained.info.run_id):
        outcome = cifar("predict", model, *words, "--format", "json")
        assert (outcome.code, outcome.stderr) == (0, "")
        return [json.loads(line) for line in outcome.stdout.splitlines()]

    return predict
