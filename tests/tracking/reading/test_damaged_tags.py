"""Tags of runs that another hand has made something else of: they count as nothing, and keep nobody waiting."""

import json

import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.text import whole_number
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import claims, models
from cifar_mlflow.tracking.reading.sweeps import EarlierSweep
from cifar_mlflow.tracking.writing import looks

CLAIM = {"key": "k", "ended": False, "renewed": 1e12, **processes.process_tags()}


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), ("0", 0), (None, 7), ("", 7), ("-1", 7), ("1.5", 7), ("many", 7), ("9" * 5000, 7)]
)
def test_a_number_is_that_of_the_tag_or_the_one_without(text, number):
    assert whole_number(text, 7) == number


def test_a_number_of_nine_digits_is_the_largest():
    assert [whole_number("9" * digits, 0) for digits in (9, 10)] == [999_999_999, 0]


def test_a_look_that_is_no_number_is_none():
    assert looks.count({f"{looks.PREFIX}a": "1", f"{looks.PREFIX}b": "9" * 5000, f"{looks.PREFIX}c": "two"}) == 1


@pytest.mark.parametrize(
    "text",
    ["garbage", "null", "[]", "{}", "1", *(json.dumps({**CLAIM, **change}) for change in (
        {"ended": "no"}, {"key": 1}, {"renewed": "yesterday"}, {"renewed": None}))],
)  # fmt: skip
def test_a_claim_that_nobody_can_read_is_over(text):
    tags = {f"{claims.PREFIX}1": text, f"{claims.PREFIX}2": json.dumps(CLAIM)}
    assert list(claims.running(tags)) == [2]


def test_a_claim_to_no_part_is_none():
    assert claims.running({f"{claims.PREFIX}x": json.dumps(CLAIM), f"{claims.PREFIX}0": json.dumps(CLAIM)}) == {}


def test_files_of_which_mlflow_makes_nothing_are_said_to_be_damaged():
    told = r"m-1 cannot be loaded: its files are damaged \(AttributeError: 'int'"
    with pytest.raises(ModelError, match=told), models._told_if_it_cannot_be_loaded("models:/m-1"):
        (1).items()


@pytest.mark.parametrize(("tags", "parts"), [({}, None), ({"parts": "4"}, 4), ({"parts": "some"}, None)])
def test_a_sweep_whose_number_of_parts_cannot_be_read_is_undivided(tags, parts):
    assert EarlierSweep("1" * 32, "s", "FINISHED", tags, None).parts == parts
