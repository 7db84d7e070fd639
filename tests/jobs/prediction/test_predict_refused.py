"""`predict` with images, options and models that are none: what is told of them."""

from pathlib import Path

import numpy as np
import pytest


def test_images_that_cannot_be_read_are_named_and_the_others_predicted(cifar, trained, photos):
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:90])
    (photos / "4.png").write_text("no image")
    np.savez(photos / "bad.npz", images=np.zeros((2, 3)))
    for extra in ([], ["--output", "out.txt"]):
        outcome = cifar("predict", trained.info.run_id, photos, photos / "bad.npz", *extra)
        assert outcome.code == 3
        text = Path("out.txt").read_text() if extra else outcome.stdout
        assert [line.split()[-1] for line in text.splitlines()[1:]] == [f"photos/{index}.png" for index in (0, 1, 2, 5)]
        told = [line for line in outcome.stderr.splitlines() if not line.startswith("written")]
        assert told[0].startswith("skipped photos/3.png: it is damaged (")
        assert told[1].startswith("skipped photos/4.png: it is no PNG, JPEG, WEBP, BMP, TIFF or GIF image")
        assert told[2].startswith("skipped photos/bad.npz: images is float64 of shape (2, 3); needed is uint8")
        assert told[3:] == ["error: 3 of 7 images could not be read"]


def test_all_wrong_paths_are_told_together_and_nothing_is_predicted(cifar, trained, photos, work):
    (work / "empty").mkdir()
    outcome = cifar("predict", trained.info.run_id, photos, "a.png", "empty")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr.splitlines() == [
        "error: 2 faults in the paths of the images:",
        "  - 'a.png': No such file or directory",
        "  - 'empty': this directory holds no image (.png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff, .gif)",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "0"], "Invalid value for '--top': 0 is not in the range x>=1"),
        (["--top", "4"], "--top: 4 is refused: the model has 3 classes"),
        (["--format", "xml"], "Invalid value for '--format'"),
    ],
)
def test_a_wrong_option_is_refused(cifar, trained, photos, words, message):
    outcome = cifar("predict", trained.info.run_id, photos, *words)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert message in outcome.stderr


@pytest.mark.parametrize("given", ["photos", "photos/1.png"])
def test_no_image_is_overwritten_with_what_is_seen_in_it(cifar, trained, photos, given):
    before = (photos / "1.png").read_bytes()
    outcome = cifar("predict", trained.info.run_id, given, "--output", photos / "1.png")
    assert (outcome.code, (photos / "1.png").read_bytes() == before) == (2, True)
    assert "1.png would be overwritten, and is to be read; give another" in outcome.stderr


def test_images_must_be_named(cifar):
    outcome = cifar("predict", "0" * 32)
    assert outcome.code == 2
    assert "Missing argument 'IMAGE...'" in outcome.stderr


def test_a_model_that_is_not_there(cifar, photos):
    outcome = cifar("predict", "0" * 32, photos)
    assert outcome.code == 6
    assert f"there is no run {'0' * 32} in " in outcome.stderr


def test_a_model_whose_files_are_gone(cifar, client, trained, photos, monkeypatch):
    import mlflow.models

    def gone(uri):
        raise mlflow.MlflowException("No such artifact: 'MLmodel'")

    monkeypatch.setattr(mlflow.models, "get_model_info", gone)
    outcome = cifar("predict", trained.info.run_id, photos)
    assert outcome.code == 6
    assert "cannot be loaded: No such artifact: 'MLmodel'" in outcome.stderr


def test_a_model_that_does_not_tell_its_classes(cifar, trained, photos, monkeypatch):
    from mlflow.models.model import ModelInfo

    monkeypatch.setattr(ModelInfo, "metadata", None)
    outcome = cifar("predict", trained.info.run_id, photos)
    assert outcome.code == 6
    assert "does not tell its classes and image size, as models of cifar-mlflow do" in outcome.stderr
