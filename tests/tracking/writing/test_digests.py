"""Whether the files of a model are those that were logged."""

import json

import numpy as np
import pytest

from cifar_mlflow.tracking.writing import digests


@pytest.fixture
def files(tmp_path):
    for name, content in (("MLmodel", "a"), ("data/model.pt2", "b"), ("data/extra.txt", "c")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_unchanged_files_have_no_differences(files):
    assert digests.differences(files, digests.tags(files)) == []
    assert sorted(json.loads(digests.tags(files)[digests.TAG])) == ["MLmodel", "data/extra.txt", "data/model.pt2"]


def test_each_difference_is_named(files):
    recorded = digests.tags(files)
    (files / "MLmodel").write_text("A")
    (files / "data" / "extra.txt").unlink()
    (files / "new").write_text("")
    assert digests.differences(files, recorded) == ["MLmodel was changed", "data/extra.txt is missing", "new was added"]


def test_what_mlflow_writes_when_it_loads_does_not_count(files):
    recorded = digests.tags(files)
    (files / "registered_model_meta").write_text("x")
    assert digests.differences(files, recorded) == []


def test_without_digests_nothing_is_known(files):
    assert digests.differences(files, {}) is None


def test_the_recorded_answer_is_read_back_as_float32(files):
    answer = np.array([[0.25, 0.75]], dtype=np.float32)
    digests.write_example_answer(files, answer)
    assert digests.read_example_answer(files).dtype == np.float32
    assert (digests.read_example_answer(files) == answer).all()
    (files / digests.EXAMPLE_ANSWER).write_text("no list")
    with pytest.raises(ValueError, match="Expecting value"):
        digests.read_example_answer(files)
    (files / digests.EXAMPLE_ANSWER).unlink()
    with pytest.raises(OSError, match="No such file"):
        digests.read_example_answer(files)
