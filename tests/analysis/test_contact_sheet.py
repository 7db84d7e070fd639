"""Many images as one: each where it belongs, gray and coloured ones."""

import io

import numpy as np
import pytest
from PIL import Image

from cifar_mlflow.analysis.contact_sheet import COLUMNS, GAP, contact_sheet


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("images", "side"), [(11, 8), (3, 64), (9, 100)])
def test_each_image_stands_in_its_place(images, side, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, channels), dtype=np.uint8)
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(pixels)))).reshape
    factor = max(1, 64 // side)
    step = side * factor + GAP
    height, width = -(-images // COLUMNS) * step - GAP, min(images, COLUMNS) * step - GAP
    drawn = sheet(height, width, channels)
    for place in range(images):
        top, left = place // COLUMNS * step, place % COLUMNS * step
        cell = drawn[top : top + side * factor : factor, left : left + side * factor : factor]
        assert (cell == pixels[place]).all()
