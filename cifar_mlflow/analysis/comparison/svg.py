"""The report's figures as inline SVG, coloured by the page's style sheet so that they follow light and dark."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape

import numpy as np

from cifar_mlflow.analysis.comparison import wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison, Row, lower_is_better

COLOURS = 8
"""Configurations with a colour of their own; more could not be told apart, so the others are grey."""
FOREST_ROWS = 60
WIDTH = 920
SEPARATOR = " · "


def colour(place: int) -> str:
    """CSS class of the configuration in this row of the table: the same in every figure."""
    return f"series-{place + 1}" if place < COLOURS else "rest"


def curve_metric(objective: str) -> str:
    """The metric logged each epoch of which the objective is the final or the best value."""
    return objective.removeprefix("final_").removeprefix("best_")


def forest_plot(comparison: Comparison) -> str:
    """Mean and 95% interval of each configuration, its runs as ticks, published results as diamonds."""
    rows, left, right, top, height = comparison.rows[:FOREST_ROWS], 270, 70, 26, 28
    everything = [value for row in rows for value in (*row.values, *row.reported, row.summary.low, row.summary.high)]
    scale = _Scale([value for value in everything if value is not None], left, WIDTH - right)
    bottom = top + height * len(rows)
    parts = [
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
        for x, text in scale.ticks()
    ]
    head = escape(_shortened(SEPARATOR.join(comparison.columns), 42))
    parts.append(f'<text class="tick" x="0" y="14">{head}</text>')
    best = next((row for row in rows if row.verdict.kind == "best"), None)
    if best is not None:
        x = scale(best.summary.mean)
        parts.append(f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
    for place, row in enumerate(rows):
        parts.append(_forest_row(row, comparison, place, top + height * (place + 0.5), scale))
    return _svg(WIDTH, bottom + 28, parts, "Mean and 95% interval of each configuration")


def _forest_row(row: Row, comparison: Comparison, place: int, y: float, scale: _Scale) -> str:
    name = wording.label(row, comparison.columns)
    short = SEPARATOR.join(wording.cell(row.parameters, column) for column in comparison.columns) or name
    mean, low, high = row.summary.mean, row.summary.low, row.summary.high
    parts = [f'<text class="label" x="0" y="{y + 4:.1f}">{escape(_shortened(short, 38))}</text>']
    parts += [
        f'<line class="run" x1="{scale(value):.1f}" x2="{scale(value):.1f}" y1="{y - 6:.1f}" y2="{y + 6:.1f}"/>'
        for value in row.values
    ]
    parts += [
        f'<path class="reported" d="M{scale(value):.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"><title>reported '
        f"{wording.number(value)}</title></path>"
        for value in row.reported
    ]
    if low is not None and high is not None:
        parts.append(f'<line class="interval" x1="{scale(low):.1f}" x2="{scale(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
    # A hollow mark says that there is a value but no interval.
    mark = "mark" if low is not None else "mark hollow"
    parts.append(f'<circle class="{mark}" cx="{scale(mean):.1f}" cy="{y:.1f}" r="5"/>')
    text = wording.number(mean, comparison.objective)
    parts.append(f'<text class="value" x="{WIDTH}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    said = wording.verdict(row.verdict, comparison.objective)
    title = f"{name}: {text}, {wording.count(row.summary.n, 'run')}{f', {said}' if said else ''}"
    return f'<g class="{colour(place)}"><title>{escape(title)}</title>{"".join(parts)}</g>'


def curves(comparison: Comparison) -> str:
    """Mean of each configuration's curves by epoch, in a band from its lowest to its highest seed; "" if none exist."""
    metric = curve_metric(comparison.objective)
    summaries = [_by_epoch(row, metric) for row in comparison.rows]
    means = np.array([mean for summary in summaries for _, mean, _, _ in summary])
    if means.size == 0:
        return ""
    # The first epochs differ from the last far more than configurations do: let their steep part run off the scale.
    falling = lower_is_better(metric)
    limits = (means.min(), np.quantile(means, 0.9)) if falling else (np.quantile(means, 0.1), means.max())
    # The bands of the last epochs reach beyond the means.
    last = [summary[-1] for summary in summaries if summary]
    vertical = _Scale([*limits, *(low for _, _, low, _ in last), *(high for _, _, _, high in last)], 330, 14)
    epochs = [epoch for summary in summaries for epoch, _, _, _ in summary]
    horizontal = _Scale([min(epochs), max(epochs)], 52, WIDTH - 12)
    parts = [
        f'<line class="grid" x1="52" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="44" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        for y, text in vertical.ticks()
    ]
    if max(epochs) - min(epochs) <= 10:
        marks = [(horizontal(epoch), str(epoch)) for epoch in range(min(epochs), max(epochs) + 1)]
    else:
        marks = [(x, text) for x, text in horizontal.ticks() if text.isdecimal() and text != "0"]
    parts += [f'<text class="tick" x="{x:.1f}" y="350" text-anchor="middle">{text}</text>' for x, text in marks]
    parts.append(f'<text class="tick" x="{(WIDTH + 40) / 2:.0f}" y="370" text-anchor="middle">epoch</text>')
    parts.append(f'<clipPath id="plot"><rect x="52" y="8" width="{WIDTH - 60}" height="326"/></clipPath>')
    drawn = [
        _curve(summary, place, wording.label(row, comparison.columns), horizontal, vertical)
        for place, (row, summary) in enumerate(zip(comparison.rows, summaries, strict=True))
        if summary
    ]
    # The first rows of the table are drawn last, on top.
    parts.append(f'<g clip-path="url(#plot)">{"".join(reversed(drawn))}</g>')
    return _svg(WIDTH, 378, parts, f"{metric} by epoch")


def _by_epoch(row: Row, metric: str) -> list[tuple[int, float, float, float]]:
    """(epoch, mean, lowest, highest) over the row's runs."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for run in row.runs:
        for epoch, value in run.curves.get(metric, []):
            if math.isfinite(value):
                values[epoch].append(value)
    return [(epoch, sum(each) / len(each), min(each), max(each)) for epoch, each in sorted(values.items())]


def _curve(
    summary: list[tuple[int, float, float, float]], place: int, name: str, horizontal: _Scale, vertical: _Scale
) -> str:
    def points(column: int) -> list[str]:
        return [f"{horizontal(point[0]):.1f},{vertical(point[column]):.1f}" for point in summary]

    band = f'<polygon class="band" points="{" ".join(points(2) + points(3)[::-1])}"/>' if place < COLOURS else ""
    if len(summary) == 1:
        line = f'<circle class="mark" cx="{horizontal(summary[0][0]):.1f}" cy="{vertical(summary[0][1]):.1f}" r="4"/>'
    else:
        line = f'<polyline class="line" points="{" ".join(points(1))}"/>'
    return f'<g class="{colour(place)}"><title>{escape(name)}</title>{band}{line}</g>'


def parallel_coordinates(comparison: Comparison) -> str:
    """One line a configuration across its parameters to the objective; "" if no parameter differs."""
    rows = comparison.rows
    if not comparison.columns:
        return ""
    top, bottom, side = 34, 300, 70
    width = max(WIDTH, 2 * side + 130 * len(comparison.columns))
    places = np.linspace(side, width - side, len(comparison.columns) + 1)
    scales = [
        _axis([row.parameters.get(name, wording.MISSING) for row in rows], bottom, top) for name in comparison.columns
    ]
    means = [row.summary.mean for row in rows]
    objective = _Scale(means, bottom, top)
    heights = [*(positions for positions, _ in scales), [objective(mean) for mean in means]]
    parts = []
    # Better rows stand first in the table: drawn last, they lie on top.
    for row, mean, *each in reversed(list(zip(rows, means, *heights, strict=True))):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places, each, strict=True))
        share = (bottom - objective(mean)) / (bottom - top)
        share = 1 - share if lower_is_better(comparison.objective) else share
        title = f"{wording.label(row, comparison.columns)}: {wording.number(mean, comparison.objective)}"
        parts.append(
            f'<polyline class="path" style="--share:{100 * share:.0f}%" points="{points}">'
            f"<title>{escape(title)}</title></polyline>"
        )
    names = [*comparison.columns, comparison.objective]
    ticks = [*(labels for _, labels in scales), objective.ticks()]
    for x, name, labels in zip(places, names, ticks, strict=True):
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(
            f'<text class="label" x="{x:.1f}" y="16" text-anchor="middle">{escape(_shortened(name, 22))}</text>'
        )
        parts += [
            f'<text class="tick halo" x="{x + 7:.1f}" y="{y + 4:.1f}">{escape(_shortened(text, 14))}</text>'
            for y, text in labels
        ]
    return _svg(width, bottom + 16, parts, "Parallel coordinates of parameters and objective")


def _axis(values: Sequence[object], bottom: float, top: float) -> tuple[list[float], list[tuple[float, str]]]:
    """Height of each value and the axis' ticks: a number's place follows its size, unless the values are few."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > COLOURS:
        logarithmic = min(numbers) > 0 and max(numbers) / min(numbers) >= 50
        scale = _Scale([math.log10(number) for number in numbers] if logarithmic else numbers, bottom, top)
        heights = [scale(math.log10(number) if logarithmic else number) for number in numbers]
        return heights, [(y, f"{10 ** float(text):.2g}" if logarithmic else text) for y, text in scale.ticks()]
    texts = [wording.parameter(value) for value in values]
    sizes = {
        text: value if isinstance(value, int | float) else math.inf for text, value in zip(texts, values, strict=True)
    }
    distinct = sorted(sizes, key=lambda text: (sizes[text], text))
    step = (bottom - top) / max(1, len(distinct) - 1)
    place = {text: bottom - step * number for number, text in enumerate(distinct)}
    every = math.ceil(len(distinct) / 20)
    return [place[text] for text in texts], [(place[text], text) for text in distinct[::every]]


class _Scale:
    """A linear map of values to pixels, with some room at the ends."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = float(min(values)), float(max(values))
        room = 0.04 * (high - low) or 0.5
        self.low, self.high, self.start, self.end = low - room, high + room, start, end

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and labels of round numbers, five or so."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
        decimals = max(0, -math.floor(math.log10(step)))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [(self(number * step), f"{number * step:.{decimals}f}") for number in range(first, last + 1)]


def _svg(width: float, height: float, parts: Sequence[str], name: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="100%" style="min-width:{0.7 * width:.0f}px" role="img" '
        f'aria-label="{escape(name)}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
