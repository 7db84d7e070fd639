"""Where tests write a folder of images."""

import pytest


@pytest.fixture
def photos(work):
    return work / "photos"
