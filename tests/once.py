"""What takes a good part of a tiny training, and comes to the same again and again: done once a process."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

_PLAIN = (int, float, str, tuple, type(None))
_exported: dict[str, Any] = {}
_drawn: dict[str, bytes] = {}


@contextlib.contextmanager
def exported_once() -> Iterator[None]:
    """torch.export, which takes a second: of a network as one before, the same graph is taken, with its own weights."""
    import torch

    export = torch.export.export

    def known(model, images, **options):
        modules = list(model.modules())
        if not all(type(each).__module__.startswith(("torch.nn.", "cifar_mlflow.")) for each in modules):
            return export(model, images, **options)
        settings = [
            [(key, value) for key, value in vars(each).items() if isinstance(value, _PLAIN)] for each in modules
        ]
        tensors = [(key, tensor.shape, tensor.dtype) for key, tensor in model.state_dict().items()]
        key = str((model, settings, tensors, [(each.shape, each.dtype) for each in images], options))
        if key not in _exported:
            _exported[key] = export(model, images, **options)
        program = copy.copy(_exported[key])
        program._state_dict = dict(model.state_dict(keep_vars=True))
        program._example_inputs = (images, {})
        return program

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", known)
        yield


@contextlib.contextmanager
def drawn_once() -> Iterator[None]:
    """The figures of a training: of as many epochs, classes and signs in the title as one before, the same is taken."""
    from cifar_mlflow.analysis import plots

    curves, confusion_matrix = plots.curves, plots.confusion_matrix

    def known_curves(history, held_out, title):
        finite = {name: np.isfinite(values).tolist() for name, values in history.items()}
        return _known(curves, (finite, held_out), history, held_out, title)

    def known_matrix(confusion, classes, title):
        return _known(confusion_matrix, (confusion.any(1).tolist(), list(classes)), confusion, classes, title)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "curves", known_curves)
        patch.setattr(plots, "confusion_matrix", known_matrix)
        yield


def _known(draw, form, *arguments) -> bytes:
    key = str((draw.__name__, form, re.sub(r"\w", "", arguments[-1])))
    if key not in _drawn:
        _drawn[key] = draw(*arguments)
    return _drawn[key]
