"""Where everything stands in the figures of the report, in pixels; figures.svg.j2 draws them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cifar_mlflow.analysis.comparison import wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison, curve_metric, lower_is_better

COLOURS = 8  # configurations with a colour of their own; more could not be told apart, so the others are grey
FOREST_ROWS = 60
WIDTH = 920


def colour(place: int) -> str:
    """CSS class of the configuration in this row of the table: the same in every figure."""
    return f"series-{place + 1}" if place < COLOURS else "rest"


def forest_plot(comparison: Comparison) -> dict[str, Any]:
    """Mean and 95% interval of each configuration, its runs as ticks, published results as diamonds."""
    rows, top = comparison.rows[:FOREST_ROWS], 26
    values = [value for row in rows for value in (*row.values, *row.reported, row.summary.low, row.summary.high)]
    x = Scale([value for value in values if value is not None], 270, WIDTH - 70)
    short = [" · ".join(wording.cell(row.parameters, name) for name in comparison.columns) for row in rows]
    best = [x(row.summary.mean) for row in rows if row is comparison.best]
    bottom = top + 28 * len(rows)
    return {"rows": list(zip(rows, short, strict=True)), "x": x, "best": best, "top": top, "bottom": bottom}


def curves(comparison: Comparison) -> dict[str, Any] | None:
    """Mean of each configuration's curves by epoch, in a band from its lowest to its highest seed; None without any."""
    metric = curve_metric(comparison.objective)
    lines = [(place, row, points) for place, row in enumerate(comparison.rows) if (points := row.curve(metric))]
    if not lines:
        return None
    # The first epochs differ from the last far more than configurations do: let their steep part run off the scale.
    means = [mean for _, _, points in lines for _, mean, _, _ in points]
    limits = np.quantile(means, (0, 0.9) if lower_is_better(metric) else (0.1, 1))
    # The bands of the last epochs reach beyond the means.
    last = [bound for _, _, points in lines for bound in points[-1][2:]]
    epochs = [epoch for _, _, points in lines for epoch, _, _, _ in points]
    x = Scale(epochs, 52, WIDTH - 12)
    marks = [(x(epoch), str(epoch)) for epoch in range(min(epochs), max(epochs) + 1)]
    if len(marks) > 11:
        marks = [(place, text) for place, text in x.ticks() if text.isdecimal() and text != "0"]
    return {"metric": metric, "x": x, "y": Scale([*limits, *last], 330, 14), "marks": marks, "lines": lines}


def parallel_coordinates(comparison: Comparison) -> dict[str, Any] | None:
    """One line a configuration across its parameters to the objective; None if no parameter differs."""
    rows, columns = comparison.rows, comparison.columns
    if not columns:
        return None
    top, bottom, side = 34, 300, 70
    width = max(WIDTH, 2 * side + 130 * len(columns))
    objective = Scale([row.summary.mean for row in rows], bottom, top)
    goals = [objective(row.summary.mean) for row in rows]
    axes = [_axis([row.parameters.get(name, wording.MISSING) for row in rows], bottom, top) for name in columns]
    axes.append((goals, objective.ticks()))
    places = np.linspace(side, width - side, len(axes)).round(1).tolist()
    best, worst = (bottom, top) if lower_is_better(comparison.objective) else (top, bottom)
    lines = [
        (row, round(100 * (worst - goal) / (worst - best)), list(zip(places, heights, strict=True)))
        for row, goal, heights in zip(rows, goals, zip(*(each for each, _ in axes), strict=True), strict=True)
    ]
    headed = zip(places, (*columns, comparison.objective), (ticks for _, ticks in axes), strict=True)
    return {"width": width, "top": top, "bottom": bottom, "lines": lines, "axes": list(headed)}


def _axis(values: Sequence[object], bottom: float, top: float) -> tuple[list[float], list[tuple[float, str]]]:
    """Height of each value and the axis' ticks: a number's place follows its size, unless the values are few."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > COLOURS:
        logarithmic = min(numbers) > 0 and max(numbers) / min(numbers) >= 50
        sizes = [math.log10(number) for number in numbers] if logarithmic else numbers
        scale = Scale(sizes, bottom, top)
        ticks = [(y, f"{10 ** float(text):.2g}" if logarithmic else text) for y, text in scale.ticks()]
        return list(map(scale, sizes)), ticks
    texts = [wording.parameter(value) for value in values]
    size = dict(zip(texts, (value if isinstance(value, int | float) else math.inf for value in values), strict=True))
    distinct = sorted(size, key=lambda text: (size[text], text))
    heights = np.linspace(bottom, top, max(2, len(distinct))).round(1).tolist()
    place = dict(zip(distinct, heights, strict=False))
    return [place[text] for text in texts], [(place[text], text) for text in distinct[:: math.ceil(len(distinct) / 20)]]


class Scale:
    """A linear map of values to pixels, with some room at the ends."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = float(min(values)), float(max(values))
        room = 0.04 * (high - low) or 0.5
        self.low, self.high, self.start, self.end = low - room, high + room, start, end

    def __call__(self, value: float) -> float:
        return round(self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and labels of round numbers, five or so."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
        decimals = max(0, -math.floor(math.log10(step)))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [(self(number * step), f"{number * step:.{decimals}f}") for number in range(first, last + 1)]
