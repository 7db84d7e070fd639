"""Where formulas end: any confidence, differences that cannot be larger, arguments that cannot be."""

import numpy as np
import pytest

from cifar_mlflow.analysis import paired, plots, statistics


@pytest.mark.parametrize("confidence", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("counts", [(50, 0, 50), (0, 50, 50), (0, 0, 50), (7, 1, 21)])
def test_an_interval_of_any_confidence_holds_what_was_seen_and_grows_with_it(confidence, counts):
    first, second, images = counts
    low, high = paired.difference_interval(*counts, confidence)
    assert low <= (first - second) / images <= high
    lower, higher = paired.difference_interval(*counts, (1 + confidence) / 2)
    assert lower <= low
    assert high <= higher


@pytest.mark.parametrize("values", [(0.1, 0.01, 1.5, 0.8), (0.1, 0.01, 1.0, 0.8), (0.1, 0.01, 0.95, 1.0), (0.1, -1)])
def test_images_needed_for_no_confidence_or_power(values):
    with pytest.raises(ValueError, match="cannot tell"):
        paired.images_needed(*values)


def test_images_needed_grow_with_what_is_asked_for():
    assert paired.images_needed(1.0, 0.5) < paired.images_needed(1.0, 0.4) < paired.images_needed(1.0, 0.4, 0.99)
    assert paired.images_needed(0.1, 0.01, power=0.8) < paired.images_needed(0.1, 0.01, power=0.9)


@pytest.mark.parametrize(("first", "second"), [([-1], [2]), ([2], [-1]), ([1, -1], [2, 2])])
def test_each_count_below_zero_is_refused(first, second):
    with pytest.raises(ValueError, match="negative"):
        statistics.mcnemar(first, second)


@pytest.mark.parametrize("values", [[], np.zeros((2, 2)), np.float64(1)])
def test_a_sample_is_a_row_of_values(values):
    with pytest.raises(ValueError, match="expected at least one value"):
        statistics.mean_interval(values)


def test_the_panels_of_curves_fill_the_figure(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.append(figure) or b"")
    history = {f"{part}_{what}": [50.0] * 3 for part in ("train", "held_out") for what in ("accuracy", "loss")}
    plots.curves(history | {"lr": [0.1] * 3}, "validation", "title")
    boxes = [axes.get_position() for axes in drawn[0].axes]
    assert max(box.x1 for box in boxes) > 0.95
    assert min(box.x0 for box in boxes) < 0.12
    assert boxes[0].height > 2 * boxes[1].height, "the rate has the smaller panel"


@pytest.mark.parametrize("values", [[76.3], [76.3, 76.3], [1.0, 2.0, 3.0]])
def test_a_mean_tells_of_how_many_values_it_is(values):
    summary = statistics.mean_interval(values)
    assert (summary.n, summary.mean) == (len(values), pytest.approx(sum(values) / len(values)))
