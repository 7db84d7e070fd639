"""Parameters read back as they were meant."""

import shlex

import pytest

from cifar_mlflow.tracking.reading.runs import unquoted


@pytest.mark.parametrize("value", ["0.0020", "/data/it's mine.npz", "/data/two  spaces.npz", "'quoted", "15,25", ""])
def test_a_value_is_the_same_typed_directly_and_through_mlflow_run(value):
    assert unquoted(value) == value
    assert unquoted(shlex.quote(value)) == value
