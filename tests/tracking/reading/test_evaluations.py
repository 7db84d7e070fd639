"""Recorded answers of models: whose they are, on which images, and whether they are whole."""

import io

import numpy as np
import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.reading import evaluations, models
from cifar_mlflow.tracking.reading.evaluations import ImageSet

LABEL, PREDICTED = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])


@pytest.fixture
def run_id(training):
    return training(
        tags={"test_digest": "of the test", "best_test_digest": "of the best", "test_fresh_digest": "fresh"}
    )


@pytest.fixture
def write(store, run_id, tmp_path):
    """Writes arrays, or bytes, as an artifact of the run."""

    def write(name, content=None, **arrays):
        if content is None:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            content = buffer.getvalue()
        (tmp_path / name).write_bytes(content)
        store.client.log_artifact(run_id, str(tmp_path / name))

    return write


@pytest.fixture
def read(store, run_id, logged):
    """The answers of the run's last model, or of its best one."""
    for weights in ("last", "best"):
        logged(run_id, weights)

    def read(*images, weights="last"):
        return evaluations.read(store, models.find_model(store, run_id, weights), ImageSet(*images))

    return read


def test_answers_to_the_test_images(read, write):
    assert read() is None
    write("test_predictions.npz", label=LABEL, predicted=PREDICTED)
    found = read()
    assert (found.digest, found.labels.tolist(), found.predicted.tolist()) == (
        *("of the test", LABEL.tolist(), PREDICTED.tolist()),
    )
    assert (found.correct.tolist(), found.accuracy) == ([True, True, False, True], 75.0)
    assert read(weights="best") is None
    write("best_test_predictions.npz", label=LABEL, predicted=LABEL)
    assert (read(weights="best").digest, read(weights="best").accuracy) == ("of the best", 100.0)


def test_answers_to_another_dataset_are_those_with_its_digest(read, write):
    write("test_predictions.npz", label=LABEL, predicted=PREDICTED)
    assert read("test", "fresh", "fresh") is None
    write("test_fresh_predictions.npz", label=LABEL, predicted=LABEL)
    assert read("test", "fresh", "fresh").accuracy == 100.0
    assert read("test", "fresh").digest == "fresh"
    assert read("test", "fresh", "another content") is None
    assert (ImageSet("test", "fresh").name, ImageSet("validation").name) == ("fresh test", "validation")


def test_answers_of_which_nobody_knows_the_images_do_not_count(store, run_id, read, write):
    write("test_predictions.npz", label=LABEL, predicted=PREDICTED)
    store.client.delete_tag(run_id, "test_digest")
    assert read() is None


def test_answers_to_the_validation_images_are_the_trainings(read, write):
    assert read("validation") is None
    write("val_predictions.npz", index=np.arange(4, dtype=np.int32), label=LABEL.astype(np.uint8), predicted=PREDICTED)
    found = read("validation")
    assert (found.digest, found.accuracy, found.labels.dtype) == ("0123456789abcdef", 75.0, np.int64)
    with pytest.raises(
        ModelError, match="digits-seed0: its best weights were chosen on the validation images, so they"
    ):
        read("validation", weights="best")


@pytest.mark.parametrize(
    "damage",
    [
        {"content": b""},
        {"content": b"PK\x03\x04"},
        {"content": b"no file of numpy's"},
        {"label": LABEL},
        {"label": LABEL, "predicted": PREDICTED[:3]},
        {"label": LABEL, "predicted": PREDICTED[:, None]},
        {"label": LABEL, "predicted": np.array([None] * 4)},
    ],
)
def test_damaged_answers_are_told_with_what_to_do(read, write, run_id, damage):
    write("test_predictions.npz", **damage)
    with pytest.raises(
        ModelError, match=f"recorded at the run {run_id} are damaged .*; `cifar-mlflow evaluate {run_id}`"
    ):
        read()


def test_damaged_answers_of_a_training_cannot_be_written_anew(store, run_id, write):
    write("val_predictions.npz", index=np.arange(4), label=LABEL, predicted=PREDICTED[:2])
    with pytest.raises(ModelError, match=r"are damaged \(shapes \(4,\), \(4,\), \(2,\)\)$"):
        evaluations.read_validation(store, run_id)
