"""What a figure shows beside its data: where an axis begins, the paper between the images."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cifar_mlflow.analysis import plots
from cifar_mlflow.analysis.contact_sheet import contact_sheet


def test_bars_of_importances_begin_at_the_left(monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.append(figure) or b"")
    plots.importances({"rate": 0.75, "width": 0.25}, "title")
    assert drawn[0].axes[0].get_xlim() == (0, 1.1)
    assert drawn[0].get_size_inches().tolist() == [7, 2]  # a bar is 0.4 inches high


def test_the_paper_between_images_is_white():
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(np.zeros((2, 4, 4, 3), np.uint8)))))
    assert set(sheet.ravel().tolist()) == {0, 255}
