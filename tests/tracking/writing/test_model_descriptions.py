"""What a model's file says of it, whoever wrote it."""

import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.writing import model_files


@pytest.mark.parametrize("content", [None, "", "1", "[1, 2]", "[1", "a: b: c", "\x00"])
def test_what_is_no_description_is_a_model_error(tmp_path, content):
    if content is not None:
        (tmp_path / "MLmodel").write_text(content)
    with pytest.raises(ModelError, match="its MLmodel file cannot be read"):
        model_files.describe(tmp_path)


def test_what_was_saved_is_told(tmp_path):
    (tmp_path / "MLmodel").write_text("metadata: {name: n, weights: last, epoch: '3'}")
    assert model_files.about(tmp_path) == {"name": "n", "weights": "last", "epoch": "3"}
