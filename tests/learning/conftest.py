"""What the tests of image files and of layers share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_mlflow.learning.compiled import bindings

CAPABILITIES = {"generic": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}


@pytest.fixture
def save(work):
    """Writes an image file; returns its path."""

    def write(name, content: Image.Image | np.ndarray, **options):
        image = content if isinstance(content, Image.Image) else Image.fromarray(content)
        image.save(work / name, **options)
        return work / name

    return write


@pytest.fixture(params=[*CAPABILITIES, "torch"])
def level(request, monkeypatch):
    """The compiled functions for each kind of processor up to this one, and torch's."""
    if request.param == "torch":
        monkeypatch.setattr(bindings, "available", lambda: None)
        return request.param
    if bindings.available() is None:
        pytest.skip("the package was installed without a C compiler")
    here = bindings.available().level
    if list(CAPABILITIES).index(request.param) > list(CAPABILITIES).index(here):
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: CAPABILITIES[request.param])
    library = bindings.Kernels(bindings.library_path())
    assert library.level == request.param
    monkeypatch.setattr(bindings, "available", lambda: library)
    return request.param
