"""Where things stand in the report's figures, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cifar_mlflow.analysis.comparison import svg
from cifar_mlflow.analysis.comparison.verdicts import compare
from cifar_mlflow.records import RunRecord

MakeRun = Callable[..., RunRecord]


def test_each_of_the_first_rows_has_a_colour_of_its_own() -> None:
    assert [svg.colour(place) for place in (0, 1, svg.COLOURS - 1, svg.COLOURS)] == [
        "series-1",
        "series-2",
        f"series-{svg.COLOURS}",
        "rest",
    ]


def test_a_scale_has_a_little_room_at_its_ends() -> None:
    scale = svg.Scale([10, 20], 0, 108)
    assert (scale(10), scale(20), scale(15)) == (4, 104, 54)
    # The other way round, as heights are.
    assert svg.Scale([10, 20], 108, 0)(10) == 104
    alone = svg.Scale([7, 7], 0, 100)
    assert (alone(7), alone(6.5), alone(7.5)) == (50, 0, 100)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 10, ["0", "5", "10"]),
        (70, 71, ["70.0", "70.5", "71.0"]),
        (0.001, 0.002, ["0.0010", "0.0015", "0.0020"]),
        (-30, 30, ["-20", "0", "20"]),
        (1000, 9000, ["2000", "4000", "6000", "8000"]),
    ],
)
def test_ticks_are_round_numbers_where_they_stand(low: float, high: float, labels: list[str]) -> None:
    scale = svg.Scale([low, high], 0, 1000)
    assert [text for _, text in scale.ticks()] == labels
    assert [place for place, _ in scale.ticks()] == [scale(float(text)) for text in labels]


def test_an_axis_of_few_values_spreads_them_evenly_from_the_bottom_to_the_top() -> None:
    assert svg._axis([0.1, 0.001, 0.1, "auto"], 300, 0) == (
        [150.0, 300.0, 150.0, 0.0],
        [(300.0, "0.001"), (150.0, "0.1"), (0.0, "auto")],
    )
    assert svg._axis([True, False], 300, 0)[1] == [(300.0, "false"), (0.0, "true")]
    assert svg._axis(["relu", "relu"], 300, 0) == ([300.0, 300.0], [(300.0, "relu")])


def test_an_axis_of_many_numbers_follows_their_size_by_decades_where_they_span_them() -> None:
    places, _ = svg._axis(list(range(1, 12)), 300, 0)
    assert places[5] == 150
    places, ticks = svg._axis([10.0**n for n in range(-6, 5)], 300, 0)
    assert places[5] == 150
    assert [text for _, text in ticks] == ["1e-05", "1"]
    # A number that is zero has no logarithm.
    places, _ = svg._axis([0, *range(1, 11), 1000], 300, 0)
    assert places[-2] > 280


def test_many_texts_leave_out_labels_and_no_places() -> None:
    places, ticks = svg._axis([f"name {n:02}" for n in range(50)], 300, 0)
    assert len(set(places)) == 50
    assert [text for _, text in ticks] == [f"name {n:02}" for n in range(0, 50, 3)]


def rows(make_run: MakeRun, epochs: int, count: int = 2) -> list[RunRecord]:
    curve = [(epoch, 70.0 + epoch) for epoch in range(1, epochs + 1)]
    return [
        make_run(70.0 + number + seed / 10, seed, parameters={"a": number}, curves={"val_accuracy": curve})
        for number in range(count)
        for seed in (0, 1)
    ]


def test_epochs_are_marked_one_by_one_or_at_round_numbers(make_run: MakeRun) -> None:
    def marks(epochs: int) -> list[str]:
        found = svg.curves(compare(rows(make_run, epochs)))
        assert found is not None
        assert [place for place, _ in found["marks"]] == [found["x"](int(text)) for _, text in found["marks"]]
        return [text for _, text in found["marks"]]

    assert marks(3) == ["1", "2", "3"]
    assert marks(11) == [str(epoch) for epoch in range(1, 12)]
    assert marks(12) == ["5", "10"]


def test_curves_run_off_the_scale_where_they_are_steep_and_alone_there(make_run: MakeRun) -> None:
    curve = [(1, 10.0), *((epoch, 70.0 + epoch) for epoch in range(2, 31))]
    runs = [make_run(70.0, seed, curves={"val_accuracy": curve}) for seed in (0, 1)]
    found = svg.curves(compare(runs))
    assert found is not None
    assert found["y"].low > 70
    assert found["y"].high > 100
    losses = [
        make_run(None, seed, metrics={"val_loss": 0.1}, curves={"val_loss": [(1, 9.0), (2, 0.1)]}) for seed in (0, 1)
    ]
    found = svg.curves(compare(losses, objective="val_loss"))
    assert found is not None
    assert found["y"].low < 0.1 < found["y"].high
    assert svg.curves(compare([make_run(70.0)])) is None


def test_a_line_of_the_parallel_coordinates_is_as_strong_as_its_configuration_is_good(make_run: MakeRun) -> None:
    found = svg.parallel_coordinates(compare(rows(make_run, 1, count=3)))
    assert found is not None
    assert [name for _, name, _ in found["axes"]] == ["a", "final_val_accuracy"]
    assert [strength for _, strength, _ in found["lines"]] == [96, 50, 4]
    heights = [[y for _, y in points] for _, _, points in found["lines"]]
    assert heights[0][0] < heights[1][0] < heights[2][0]  # the largest value on top
    assert all(found["top"] <= y <= found["bottom"] for line in heights for y in line)
    assert svg.parallel_coordinates(compare([make_run(70.0)])) is None


def test_rows_of_the_forest_stand_apart_and_within_the_figure(make_run: MakeRun) -> None:
    one, three = (svg.forest_plot(compare(rows(make_run, 1, count=count))) for count in (1, 3))
    assert one["bottom"] > one["top"] > 0
    assert three["bottom"] - three["top"] == 3 * (one["bottom"] - one["top"])
    assert [short for _, short in three["rows"]] == ["2", "1", "0"]
    assert three["best"] == [three["x"](72.05)]
    assert svg.forest_plot(compare([make_run(70.0)]))["best"] == []
