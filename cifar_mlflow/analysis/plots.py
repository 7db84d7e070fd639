"""Figures of a training, an evaluation or a sweep, as the bytes of PNG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cifar_mlflow.analysis.calibration import Reliability

TRAIN, HELD_OUT, RATE, REST = "#8a8f98", "#1f6feb", "#b58900", "#b0b4ba"
NAMED = 8  # configurations with a colour and a name of their own


def curves(history: Mapping[str, Sequence[float]], held_out: str, title: str) -> bytes:
    """Accuracy and loss by epoch, and the learning rate below.

    `history` has the keys train_accuracy, train_loss, held_out_accuracy, held_out_loss and lr, one value an epoch,
    NaN where an epoch was not scored; `held_out` is what the held-out images are called: validation or test.
    """
    from matplotlib.ticker import MaxNLocator

    # All sizes are given: matplotlib takes as long to find them out as to draw, and a sweep draws many figures.
    figure = _figure(10, 5.2, layout=None)
    room = {"left": 0.075, "right": 0.98, "bottom": 0.09, "top": 0.88, "wspace": 0.18, "hspace": 0.14}
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 1), **room)
    epochs = np.arange(1, len(history["lr"]) + 1)
    for column, (quantity, unit) in enumerate((("accuracy", " (%)"), ("loss", ""))):
        axes = figure.add_subplot(grid[0, column])
        below = figure.add_subplot(grid[1, column], sharex=axes)
        held = np.asarray(history[f"held_out_{quantity}"])
        scored = np.isfinite(held)
        axes.plot(epochs, history[f"train_{quantity}"], color=TRAIN, marker=_marker(epochs), label="training")
        if scored.any():
            seen = epochs[scored]
            axes.plot(seen, held[scored], color=HELD_OUT, marker=_marker(seen), label=held_out)
            if quantity == "accuracy":
                best = int(np.nanargmax(held))
                text = f"best {held[best]:.2f} at epoch {best + 1}, last {held[-1]:.2f}"
                axes.annotate(text, (0.98, 0.03), xycoords="axes fraction", ha="right", color=HELD_OUT)
                axes.margins(y=0.12)  # leaves room for the words below the lowest point
        axes.set(title=f"{quantity}{unit}", xlim=(0.5, len(epochs) + 0.5))
        axes.legend(loc="best", frameon=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(labelbottom=False)
        below.step(epochs, history["lr"], where="mid", color=RATE, marker="o" if len(epochs) == 1 else None)
        below.set(xlabel="epoch", ylabel="rate", ylim=(0, 1.15 * max(history["lr"])))
        for each in (axes, below):
            each.grid(alpha=0.25)
            each.ticklabel_format(axis="y", scilimits=(-4, 5))
    figure.suptitle(_plain(title), fontsize=11)
    return _png(figure)


def class_curves(epochs: Sequence[int], recalls: np.ndarray, classes: Sequence[str], title: str) -> bytes:
    """Recall (epochs, classes) by epoch, per cent, NaN of a class without images; the worst at the end are named first.

    Lines of one colour are told apart by their strokes.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(9.5, 5.2, layout=None)
    axes = figure.add_axes((0.07, 0.1, 0.58, 0.81), xlabel="epoch", ylabel="recall (%)")
    order = np.argsort(np.nan_to_num(recalls[-1], nan=np.inf), kind="stable")
    for place in order[np.isfinite(recalls[-1][order])].tolist():
        label = f"{_shortened(classes[place], 16)} {recalls[-1, place]:.1f}"
        style = "-" if place < 10 else "--"
        axes.plot(epochs, recalls[:, place], style, color=f"C{place % 10}", marker=_marker(epochs), label=_plain(label))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    figure.suptitle(_plain(title), fontsize=11)
    return _png(figure)


def reliability(curves: Mapping[str, Reliability], title: str) -> bytes:
    """Accuracy by confidence, a line for each of `curves` by its name, beside the diagonal on which both are equal."""
    figure = _figure(5.5, 5.2)
    axes = figure.add_subplot(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=_plain(title))
    axes.plot((0, 1), (0, 1), color=REST, linestyle="--", zorder=1)
    for name, curve in curves.items():
        axes.plot(curve.confidence, curve.accuracy, marker="o", markersize=4, label=_plain(name))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return _png(figure)


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> bytes:
    """`confusion` (classes, classes) counts images: rows are true classes, columns predicted ones."""
    count = len(classes)
    names = [_plain(_shortened(name)) for name in classes] if count <= 40 else []
    side = max(5.0, 0.55 * min(count, 40) + 2)
    # These sizes are given too: the longest name needs room on the left and, at a slant, below the square.
    longest = max(map(_width, names), default=0.2) / side
    figure = _figure(side, side, layout=None)
    square = 1 - longest - 0.95 / side
    axes = figure.add_axes((longest + 0.6 / side, 0.71 * longest + 0.6 / side, square, square))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(confusion / confusion.sum(1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if names:
        axes.set_xticks(range(count), names, rotation=45, ha="right")
        axes.set_yticks(range(count), names)
    if count <= 20:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    figure.suptitle(_plain(title), fontsize=11, y=1 - 0.08 / side)
    return _png(figure)


def gallery(
    pixels: np.ndarray, truth: Sequence[str], predicted: Sequence[str], confidence: Sequence[float], title: str
) -> bytes:
    """Images uint8 (n, height, width, channels) in a grid, each with what it is and was taken for (`confidence`: %)."""
    columns = 6
    rows = max(1, -(-len(pixels) // columns))
    figure = _figure(1.9 * columns, 2.2 * rows + 0.5)
    for place, (image, true, taken, sure) in enumerate(zip(pixels, truth, predicted, confidence, strict=True), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(_plain(f"{true}\ntaken for {taken} ({sure:.0f}%)"), fontsize=8)
        axes.axis("off")
    figure.suptitle(_plain(title), fontsize=11)
    return _png(figure)


def contact_sheet(rows: Mapping[str, np.ndarray], title: str) -> bytes:
    """Images uint8 (n, height, width, channels) of each class, in a row beside its name."""
    height, width, _ = next(iter(rows.values())).shape[1:]
    columns = max(map(len, rows.values()))
    sheet = np.full((len(rows), height + 2, columns, width + 2, 3), 255, np.uint8)
    for row, images in zip(sheet, rows.values(), strict=True):
        row[1:-1, : len(images), 1:-1] = images.transpose(1, 0, 2, 3)
    figure = _figure(0.8 * columns + 2.2, 0.8 * len(rows) * height / width + 0.8)
    axes = figure.add_subplot(title=_plain(title), xticks=[])
    axes.imshow(sheet.reshape(len(rows) * (height + 2), columns * (width + 2), 3))
    centres = (np.arange(len(rows)) + 0.5) * (height + 2)
    axes.set_yticks(centres, [_plain(_shortened(name)) for name in rows], fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _png(figure)


def sweep_curves(
    configurations: Sequence[tuple[str, Sequence[tuple[int, float, float, float]]]], metric: str, title: str
) -> bytes:
    """The metric by epoch, a line a configuration, the best first: the mean of its seeds in a band of their range.

    Each configuration has a name and its (epoch, mean, lowest, highest), which may be none.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(10, 5.5)
    axes = figure.add_subplot(xlabel="epoch", ylabel=metric.replace("_", " "), title=_plain(title))
    for place, (name, points) in reversed(list(enumerate(configurations))):
        if points:
            epochs, means, lows, highs = map(list, zip(*points, strict=True))
            color, height, label = (f"C{place}", 3, _plain(name)) if place < NAMED else (REST, 1, None)
            axes.plot(epochs, means, marker=_marker(epochs), label=label, color=color, zorder=height)
            axes.fill_between(epochs, lows, highs, alpha=0.15, linewidth=0, color=color)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(reverse=True, frameon=False, fontsize=8)
    return _png(figure)


def importances(shares: Mapping[str, float], title: str) -> bytes:
    """Each parameter's share in the variation of the objective, the largest on top."""
    figure = _figure(7, 1.2 + 0.4 * len(shares))
    axes = figure.add_subplot(xlim=(0, 1.1), xlabel="share of the variation", title=_plain(title))
    bars = axes.barh(list(shares), list(shares.values()), color=HELD_OUT)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    return _png(figure)


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    return Figure(figsize=(width, height), layout=layout)


def _marker(epochs: Sequence[int] | np.ndarray) -> str | None:
    return "o" if len(epochs) < 3 else None  # a line through so few points can hardly be seen


def _width(text: str) -> float:
    """Inches that a label takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with _any_script():
        return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=10), ismath=False)[0]) / 72


def _shortened(name: str, most: int = 20) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _plain(text: str) -> str:
    """As matplotlib can draw it: no formula between two dollar signs, and no byte of a file's name that is no text."""
    return text.replace("$", r"\$").encode("utf-8", "backslashreplace").decode()


@contextmanager
def _any_script() -> Iterator[None]:
    """A name in a script that the font lacks is drawn as boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        yield


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with _any_script():
        # Less compression makes the file a quarter larger and saves 25 ms.
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()
