"""By whose functions the tests of single layers train."""

import pytest
from layer_results import CAPABILITIES, libraries

from cifar_mlflow.learning.compiled import bindings


def _level(name):
    """Other processors' functions, and torch's, are left to the long tests: the drawn examples have them all."""
    here = [*libraries(), "torch"][max(len(libraries()) - 1, 0)]
    return name if name == here else pytest.param(name, marks=pytest.mark.long)


@pytest.fixture(params=[_level(name) for name in (*CAPABILITIES, "torch")])
def level(request, monkeypatch):
    """The compiled functions for each kind of processor up to this one, and torch's."""
    if request.param != "torch" and request.param not in libraries():
        pytest.skip(f"no functions were compiled for {request.param}, or this processor is none")
    monkeypatch.setattr(bindings, "available", lambda: libraries().get(request.param))
    return request.param
