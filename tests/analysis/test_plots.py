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


@pytest.mark.parametrize(("classes", "epochs"), [(["0", "1"], 2), (["W" * 30] * 20, 30), (["$a$", "猫" * 20], 1000)])
def test_curves_of_classes_have_room_for_their_names(classes, epochs):
    recalls = np.linspace(0, 100, epochs * len(classes)).reshape(epochs, len(classes))
    assert edge_is_white(plots.class_curves(range(1, epochs + 1), recalls, classes, "digits-prelu-seed0: recall"))


@pytest.mark.filterwarnings("error")
def test_curves_of_classes_name_the_worst_first_and_leave_out_what_has_no_images(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.append(figure) or b"")
    recalls = np.array([[50, np.nan, 90], [60, np.nan, 20]])
    plots.class_curves([1, 2], recalls, ["cat", "none", "dog"], "t")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dog 20.0", "cat 60.0"]
    assert [list(line.get_ydata()) for line in axes.lines] == [[90, 20], [50, 60]]


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


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn meanwhile."""
    figures = []
    monkeypatch.setattr(plots, "_png", lambda figure: figures.append(figure) or b"")
    return figures


@pytest.mark.parametrize(("images", "rows"), [(0, 1), (1, 1), (6, 1), (7, 2), (13, 3)])
def test_a_gallery_has_six_images_a_row_each_with_its_names(drawn, images, rows):
    pixels = np.arange(images * 4 * 4 * 3, dtype=np.uint8).reshape(images, 4, 4, 3)
    plots.gallery(pixels, ["cat"] * images, ["dog"] * images, [99.4] * images, "wrong")
    (figure,) = drawn
    assert len(figure.axes) == images
    assert figure.get_figheight() > 2 * rows  # without images too, there is room for the title
    for place, axes in enumerate(figure.axes):
        assert axes.get_title() == "cat\ntaken for dog (99%)"
        grid = axes.get_subplotspec().get_gridspec()
        assert (grid.nrows, grid.ncols, axes.get_subplotspec().num1) == (rows, 6, place)
        assert (axes.images[0].get_array() == pixels[place]).all()


def test_a_confusion_matrix_shows_shares_and_counts_and_shortens_long_names(drawn):
    names = ["x" * 20, "y" * 21, "none of it"]
    plots.confusion_matrix(np.array([[3, 1, 0], [0, 8, 0], [0, 0, 0]]), names, "title")
    (axes,) = drawn[0].axes
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["x" * 20, "y" * 19 + "…", "none of it"]
    counts = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert counts == {(0, 0): ("3", "white"), (1, 0): ("1", "black"), (1, 1): ("8", "white")}
    # Of many classes there is no room for numbers, and of very many none for names.
    for classes, numbers, named in ((20, 20, True), (21, 0, True), (40, 0, True), (41, 0, False)):
        names = [str(name) for name in range(classes)]
        plots.confusion_matrix(np.eye(classes, dtype=int), names, "title")
        (axes,) = drawn[-1].axes
        assert len(axes.texts) == numbers
        assert ([label.get_text() for label in axes.get_xticklabels()] == names) is named


@pytest.mark.parametrize(("epochs", "marker"), [(1, "o"), (2, "o"), (3, "None")])
def test_points_are_marked_where_they_are_too_few_for_a_line(drawn, epochs, marker):
    history = {f"{part}_{what}": [50.0] * epochs for part in ("train", "held_out") for what in ("accuracy", "loss")}
    plots.curves(history | {"lr": [0.1] * epochs}, "validation", "title")
    lines = [line for axes in drawn[0].axes for line in axes.lines if line.get_label() in ("training", "validation")]
    assert {line.get_marker() for line in lines} == {marker}
    assert len(lines) == 4


def test_only_epochs_that_were_scored_are_drawn_and_the_best_is_named(drawn):
    history = {
        "train_accuracy": [1.0, 2.0, 3.0],
        "train_loss": [1.0, 2.0, 3.0],
        "held_out_accuracy": [np.nan, 60.0, 55.5],
        "held_out_loss": [np.nan] * 3,
        "lr": [0.1, 0.2, 0.1],
    }
    plots.curves(history, "test", "title")
    accuracy, rate, loss, _ = drawn[0].axes
    (held,) = [line for line in accuracy.lines if line.get_label() == "test"]
    assert held.get_xydata().tolist() == [[2, 60], [3, 55.5]]
    assert [text.get_text() for text in accuracy.texts] == ["best 60.00 at epoch 2, last 55.50"]
    assert [line.get_label() for line in loss.lines] == ["training"]
    assert accuracy.get_xlim() == (0.5, 3.5)
    assert rate.get_ylim() == pytest.approx((0, 0.23))


def test_importances_are_bars_with_the_largest_on_top(drawn):
    plots.importances({"rate": 0.75, "width": 0.25}, "title")
    (axes,) = drawn[0].axes
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.25]
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in axes.texts] == ["0.75", "0.25"]
