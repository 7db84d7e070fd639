"""Figures of fixed layout: whatever the names and numbers, nothing is cut off at the edge."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cifar_mlflow.analysis import plots


def edge_is_white(figure: bytes) -> bool:
    pixels = np.asarray(Image.open(io.BytesIO(figure)).convert("L"))
    return all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


@pytest.mark.parametrize(
    "classes", [["0", "1"], ["W" * 30, "i"], ["$a$", "猫" * 20], [f"class {n}" for n in range(45)]]
)
def test_a_confusion_matrix_has_room_for_the_names_of_its_classes(classes):
    confusion = np.eye(len(classes), dtype=int) * 1000
    assert edge_is_white(plots.confusion_matrix(confusion, classes, "digits-prelu-seed0: validation, 99.00%"))


@pytest.mark.parametrize(("epochs", "rate", "loss"), [(1, 1e-5, 2.3), (30, 0.002, 1e6), (1000, 10.0, 0.0001)])
def test_curves_have_room_for_their_numbers(epochs, rate, loss):
    history = {f"{part}_accuracy": [50.0] * epochs for part in ("train", "held_out")}
    history |= {f"{part}_loss": list(loss / np.arange(1, epochs + 1)) for part in ("train", "held_out")}
    assert edge_is_white(plots.curves(history | {"lr": [rate] * epochs}, "validation", "digits-prelu-seed0"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("configurations", [1, 20])
def test_curves_of_a_sweep_name_the_first_configurations_alone(configurations, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.append(figure) or b"")
    points = [(epoch, 70.0 + epoch, 69.0, 80.0) for epoch in (1, 2, 3)]
    plots.sweep_curves([(f"lr $ {n}", points) for n in range(configurations)], "val_accuracy", "Sweep a $ b")
    (axes,) = drawn[0].axes
    assert len(axes.lines) == configurations
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [rf"lr \$ {n}" for n in range(min(configurations, plots.NAMED))]


@pytest.mark.filterwarnings("error")
def test_a_sweep_without_curves_has_an_empty_figure():
    assert plots.sweep_curves([("relu", [])], "val_accuracy", "Sweep").startswith(b"\x89PNG")
