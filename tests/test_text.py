"""Words that several parts of the package use."""

import pytest

from cifar_mlflow.errors import causes
from cifar_mlflow.text import count, did_you_mean, first_line, option_name


@pytest.mark.parametrize(("number", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1234, "1,234 runs")])
def test_a_count(number, text):
    assert count(number, "run") == text


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("one\ntwo", "one"),
        ("\n  one \ntwo", "one"),
        ("", "ValueError"),
        (" \n", "ValueError"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + "..."),
        ("x" * 280 + " http://user:secret@host/", "x" * 280 + " http://***@host/"),
        ("x" * 285 + " http://user:secret@host/path", "x" * 285 + " http://***@hos..."),
    ],
)
def test_the_first_line_of_an_error(message, line):
    assert first_line(ValueError(message)) == line


def test_the_name_of_an_option():
    assert option_name("learning_rate") == "--learning-rate"


def test_a_hint_has_the_prefix_of_what_is_meant():
    assert did_you_mean("gama", ["gamma", "momentum"], "--") == " (did you mean --gamma?)"
    assert did_you_mean("colour", ["gamma", "momentum"]) == ""


def test_the_causes_of_an_error():
    first, second = KeyError(), ValueError()
    second.__context__ = first  # as of `raise second` while first is handled
    assert list(causes(second)) == [second, first]
    second.__suppress_context__ = True  # raise second from None
    assert list(causes(second)) == [second]
    second.__cause__ = first  # raise second from first
    assert list(causes(second)) == [second, first]
