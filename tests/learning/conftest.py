"""What the tests of image files share."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def save(work):
    """Writes an image file; returns its path."""

    def write(name, content: Image.Image | np.ndarray, **options):
        image = content if isinstance(content, Image.Image) else Image.fromarray(content)
        image.save(work / name, **options)
        return work / name

    return write
