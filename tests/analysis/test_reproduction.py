"""Two runs number by number: what is the same, what is within the tolerance, and what it is called."""

import json
import math

import pytest

from cifar_mlflow.analysis.reproduction import compare

NAN, INF = math.nan, math.inf
ORIGINAL = {"val_loss": {1: 1.5, 2: 1.0, 3: 0.5}, "val_accuracy": {1: 50.0, 2: 60.0, 3: 70.0}, "final": {0: 70.0}}


def changed(name, epoch, value):
    return {**ORIGINAL, name: {**ORIGINAL[name], epoch: value}}


def test_the_same_numbers_are_identical():
    result = compare(ORIGINAL, ORIGINAL, 0)
    assert result.verdict == "identical"
    assert result.summary == "identical to the bit: 2 metrics over 3 epochs and 1 final metric"


def test_the_last_bit_counts():
    value = math.nextafter(1.0, 2)
    result = compare(ORIGINAL, changed("val_loss", 2, value), 0)
    assert result.verdict == "different"
    assert result.summary.startswith("different from epoch 2 on (tolerance 0): ")
    assert compare(ORIGINAL, changed("val_loss", 2, value), 1e-9).verdict == "equal"


def test_a_difference_within_the_tolerance_is_told():
    result = compare(ORIGINAL, changed("val_loss", 2, 1.0005), 0.001)
    assert [metric.verdict for metric in result.metrics] == ["equal", "identical", "identical"]
    assert result.summary == (
        "equal within the tolerance 0.001: 2 metrics over 3 epochs and 1 final metric; "
        "the largest difference is 0.0005 (val_loss, epoch 2)"
    )


@pytest.mark.parametrize(("value", "verdict"), [(60.0599, "equal"), (60.0601, "different")])
def test_the_tolerance_is_relative_above_one(value, verdict):
    assert compare(ORIGINAL, changed("val_accuracy", 2, value), 0.001).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(0.5009, "equal"), (0.5011, "different")])
def test_the_tolerance_is_absolute_below_one(value, verdict):
    assert compare(ORIGINAL, changed("val_loss", 3, value), 0.001).verdict == verdict


def test_the_first_epoch_beyond_the_tolerance_is_named():
    again = changed("val_loss", 1, 1.5001) | {"val_accuracy": {1: 50.0, 2: 61.0, 3: 90.0}}
    result = compare(ORIGINAL, again, 0.001)
    assert [metric.differs for metric in result.metrics] == [(1,), (2, 3), ()]
    assert result.summary == (
        "different from epoch 2 on (tolerance 0.001): the largest difference is 20 (val_accuracy, epoch 3)"
    )


def test_a_difference_at_the_end_alone_is_no_epochs():
    summary = compare(ORIGINAL, changed("final", 0, 71.0), 0.001).summary
    assert summary == "different at the end (tolerance 0.001): the largest difference is 1 (final, at the end)"


@pytest.mark.parametrize(
    ("value", "other", "verdict"),
    [(NAN, NAN, "identical"), (INF, INF, "identical"), (NAN, 1.0, "different"), (1.0, NAN, "different"),
     (INF, -INF, "different"), (INF, 1.0, "different"), (1.0, INF, "different"), (0.0, -0.0, "identical")],
)  # fmt: skip
def test_values_that_are_no_finite_numbers(value, other, verdict):
    result = compare({"val_loss": {1: value}}, {"val_loss": {1: other}}, 1000.0)
    assert result.verdict == verdict
    json.dumps(result.document(), allow_nan=False)


def test_a_value_that_is_missing_is_a_difference():
    assert compare(ORIGINAL, {**ORIGINAL, "val_loss": {1: 1.5}}, 1000.0).summary.startswith("different from epoch 2 on")
    assert compare(ORIGINAL, {}, 1000.0).verdict == "different"


def test_epochs_that_only_the_second_run_has_do_not_count():
    result = compare({"lr": {1: 0.1}}, {"lr": {1: 0.1, 2: 0.2}, "val_loss": {1: 3.0}}, 0)
    assert result.summary == "identical to the bit: 1 metric over 1 epoch"


def test_the_table_has_a_line_a_metric():
    lines = compare(ORIGINAL, changed("val_loss", 2, 1.0005) | {"final": {0: 75.0}}, 0.001).table().splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["val_loss", "within", "tolerance", "2", "0.0005"],
        ["val_accuracy", "identical", "-", "0"],
        ["final", "different", "end", "5"],
    ]
