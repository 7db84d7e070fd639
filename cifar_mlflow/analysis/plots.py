"""Figures, as the bytes of PNG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN, HELD_OUT, RATE = "#8a8f98", "#1f6feb", "#b58900"


def curves(history: Mapping[str, Sequence[float]], held_out: str, title: str) -> bytes:
    """Accuracy and loss by epoch, and the learning rate below.

    `history` has the keys train_accuracy, train_loss, held_out_accuracy, held_out_loss and lr, one value an epoch;
    `held_out` is what the held-out images are called: validation or test.
    """
    from matplotlib.ticker import MaxNLocator

    # Of known size, all of it: to let matplotlib find out takes as long as the drawing, and a sweep draws many.
    figure = _figure(10, 5.2, layout=None)
    room = {"left": 0.075, "right": 0.99, "bottom": 0.09, "top": 0.88, "wspace": 0.18, "hspace": 0.08}
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 1), **room)
    epochs = np.arange(1, len(history["lr"]) + 1)
    marker = "o" if len(epochs) < 3 else None
    for column, (quantity, unit) in enumerate((("accuracy", " (%)"), ("loss", ""))):
        axes = figure.add_subplot(grid[0, column])
        held = np.asarray(history[f"held_out_{quantity}"])
        axes.plot(epochs, history[f"train_{quantity}"], color=TRAIN, marker=marker, label="training")
        axes.plot(epochs, held, color=HELD_OUT, marker=marker, label=held_out)
        axes.set(title=f"{quantity}{unit}", xlim=(0.5, len(epochs) + 0.5))
        if quantity == "accuracy":
            best = int(held.argmax())
            axes.annotate(
                f"best {held[best]:.2f} at epoch {best + 1}, last {held[-1]:.2f}",
                (0.98, 0.03),
                xycoords="axes fraction",
                ha="right",
                color=HELD_OUT,
            )
        axes.grid(alpha=0.25)
        axes.legend(loc="best", frameon=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelbottom=False)
        below = figure.add_subplot(grid[1, column], sharex=axes)
        below.step(epochs, history["lr"], where="mid", color=RATE)
        below.set(xlabel="epoch", ylabel="rate", ylim=(0, 1.15 * max(history["lr"])))
        below.grid(alpha=0.25)
    figure.suptitle(_plain(title), fontsize=11)
    return _png(figure)


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> bytes:
    """`confusion` (classes, classes) counts images: rows are true classes, columns predicted ones."""
    count = len(classes)
    side = max(5.0, 0.55 * min(count, 40) + 2)
    figure = _figure(side, side)
    axes = figure.add_subplot()
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(confusion / confusion.sum(1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if count <= 40:
        names = [name if len(name) <= 20 else name[:19] + "…" for name in classes]
        axes.set_xticks(range(count), [_plain(name) for name in names], rotation=45, ha="right")
        axes.set_yticks(range(count), [_plain(name) for name in names])
    if count <= 20:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(_plain(title), fontsize=11)
    return _png(figure)


def gallery(
    pixels: np.ndarray, truth: Sequence[str], predicted: Sequence[str], confidence: Sequence[float], title: str
) -> bytes:
    """Images uint8 (n, height, width, channels) in a grid, each with what it is and what it was taken for.

    `confidence` is in per cent.
    """
    columns = 6
    rows = max(1, -(-len(pixels) // columns))
    figure = _figure(1.9 * columns, 2.2 * rows + 0.5)
    for position, image in enumerate(pixels):
        axes = figure.add_subplot(rows, columns, position + 1)
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        text = f"{truth[position]}\ntaken for {predicted[position]} ({confidence[position]:.0f}%)"
        axes.set_title(_plain(text), fontsize=8)
        axes.axis("off")
    figure.suptitle(_plain(title), fontsize=11)
    return _png(figure)


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    return Figure(figsize=(width, height), layout=layout)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read a formula between two dollar signs


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to warn whoever trains.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
