"""Figures of a whole sweep, as the bytes of PNG files."""

from __future__ import annotations

from collections.abc import Mapping

from cifar_mlflow.analysis.comparison import svg, wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison
from cifar_mlflow.analysis.plots import _figure, _plain, _png

NAMED = 8  # configurations with a colour and a name of their own


def curves(comparison: Comparison, title: str) -> bytes:
    """The objective's metric by epoch, a line a configuration: the mean of its seeds in a band of their range."""
    from matplotlib.ticker import MaxNLocator

    metric = svg.curve_metric(comparison.objective)
    figure = _figure(10, 5.5)
    axes = figure.add_subplot()
    for place, row in reversed(list(enumerate(comparison.rows))):
        points = svg._by_epoch(row, metric)
        if not points:
            continue
        epochs, means, lows, highs = (list(column) for column in zip(*points, strict=True))
        color, height = (f"C{place}", 3) if place < NAMED else ("#b0b4ba", 1)
        label = _plain(wording.label(row, comparison.columns)) if place < NAMED else None
        axes.plot(epochs, means, marker="o" if len(epochs) < 3 else None, label=label, color=color, zorder=height)
        axes.fill_between(epochs, lows, highs, alpha=0.15, linewidth=0, color=color)
    axes.set(xlabel="epoch", ylabel=metric.replace("_", " "), title=_plain(title))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8)
    return _png(figure)


def importances(shares: Mapping[str, float], title: str) -> bytes:
    """Each parameter's share in the variation of the objective, the largest on top."""
    figure = _figure(7, 1.2 + 0.4 * len(shares))
    axes = figure.add_subplot()
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color="#1f6feb")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.1), xlabel="share of the variation", title=_plain(title))
    return _png(figure)
