"""`predict`: what a model sees in image files, and what is told of those that are none."""

import csv
import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import TINY_TRAINING, tiny_arrays

TEST_IMAGES = tiny_arrays()["x_test"]


@pytest.fixture
def photos(work):
    """A directory of the first six test images of the tiny dataset as PNG, whose classes are 0, 1, 2, 0, 1, 2."""
    (work / "photos").mkdir()
    for index, pixels in enumerate(TEST_IMAGES[:6]):
        Image.fromarray(pixels).save(work / "photos" / f"{index}.png")
    return Path("photos")


@pytest.fixture
def predicted(cifar, trained):
    """A function that predicts with some words; returns what was printed as JSON, a line an image."""

    def predict(*words, model=trained.info.run_id):
        outcome = cifar("predict", model, *words, "--format", "json")
        assert (outcome.code, outcome.stderr) == (0, "")
        return [json.loads(line) for line in outcome.stdout.splitlines()]

    return predict


@pytest.fixture
def recorded(cifar, client, trained):
    """The probabilities that `evaluate` recorded for the tiny test set."""
    assert cifar("evaluate", trained.info.run_id).code == 0
    with np.load(client().download_artifacts(trained.info.run_id, "test_predictions.npz")) as file:
        return file["probabilities"]


def probabilities(lines, classes):
    """float (images, classes), whatever the order in which the classes were printed."""
    rows = [{each["class"]: each["probability"] for each in line["predictions"]} for line in lines]
    return np.array([[row[name] for name in classes] for row in rows])


# ------------------------------------------------------------------------------------------------------- answers


def test_the_answers_are_those_that_evaluate_recorded(predicted, recorded, photos):
    lines = predicted(photos, "--top", 3)
    assert [line["image"] for line in lines] == [f"photos/{index}.png" for index in range(6)]
    assert np.abs(probabilities(lines, "012") - recorded[:6]).max() < 1e-5
    assert [line["predictions"][0]["class"] for line in lines] == [str(each) for each in recorded[:6].argmax(1)]
    assert len({line["predictions"][0]["class"] for line in lines}) > 1


def test_a_dataset_file_answers_for_its_test_images(predicted, recorded, tiny):
    lines = predicted(tiny, "--top", 3)
    assert [line["image"] for line in lines] == [f"{tiny}[{index}]" for index in range(30)]
    assert np.abs(probabilities(lines, "012") - recorded).max() < 1e-5


def test_cifar10_images_get_the_recorded_answers(cifar, client, runs, work, cifar10_directory):
    from cifar_mlflow.learning.data import cifar10

    x_train, y_train, x_test, y_test, classes, _ = cifar10.read(str(cifar10_directory))
    x_test, y_test = x_test[:700], y_test[:700]
    np.savez(
        work / "some.npz", x_train=x_train[:500], y_train=y_train[:500], x_test=x_test, y_test=y_test, classes=classes
    )
    assert cifar("train", "--dataset", "some.npz", *TINY_TRAINING, "--epochs", 1, "--batch-size", 64).code == 0
    (run,) = runs()
    assert cifar("evaluate", run.info.run_id).code == 0
    with np.load(client().download_artifacts(run.info.run_id, "test_predictions.npz")) as file:
        recorded, chosen = file["probabilities"], file["predicted"]
    (work / "png").mkdir()
    for index, pixels in enumerate(x_test):
        Image.fromarray(pixels).save(work / "png" / f"{index:03}.png")
    outcome = cifar("predict", run.info.run_id, "png", "--format", "json", "--top", 10)
    assert outcome.code == 0
    lines = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert np.abs(probabilities(lines, classes) - recorded).max() < 1e-5
    assert [line["predictions"][0]["class"] for line in lines] == [classes[index] for index in chosen]


def test_the_most_probable_class_comes_first(predicted, photos):
    (line,) = predicted(photos / "0.png", "--top", 3)
    found = [each["probability"] for each in line["predictions"]]
    assert found == sorted(found, reverse=True)
    assert sum(found) == pytest.approx(1, abs=1e-5)


def test_no_training_data_are_needed(cifar, runs, work, photos, write_npz, tiny_training):
    path = write_npz("mine.npz")
    assert cifar("train", *tiny_training, "--dataset", path, "--epochs", 1).code == 0
    path.unlink()
    assert cifar("predict", runs()[0].info.run_id, photos).code == 0


def test_a_model_can_be_named_by_its_id_or_alias_and_best_weights_asked_for(predicted, client, trained, photos):
    found = [client().get_logged_model(output.model_id) for output in trained.outputs.model_outputs]
    ids = {model.tags["weights"]: model.model_id for model in found}
    client().create_registered_model("net")
    client().create_model_version("net", f"models:/{ids['best']}", model_id=ids["best"])
    client().set_registered_model_alias("net", "champion", "1")
    best = predicted(photos, "--weights", "best")
    assert predicted(photos, model="net@champion") == predicted(photos, model="models:/net/1") == best
    assert predicted(photos, model=f"models:/{ids['last']}") == predicted(photos)


# -------------------------------------------------------------------------------------------------------- output


def test_a_table_is_printed_for_people(cifar, trained, photos):
    lines = cifar("predict", trained.info.run_id, photos, "--top", 2).stdout.splitlines()
    assert lines[0] == "class  probability  class  probability  image"
    for index, line in enumerate(lines[1:]):
        first, sure, second, unsure, image = line.split()
        assert {first, second} < set("012")
        assert 100 >= float(sure.rstrip("%")) >= float(unsure.rstrip("%")) >= 0
        assert image == f"photos/{index}.png"
        assert line.index(image) == lines[0].index("image")


def test_csv_has_a_row_an_image_and_rank(cifar, trained, predicted, photos):
    text = cifar("predict", trained.info.run_id, photos, "--top", 2, "--format", "csv").stdout
    assert text.startswith("image,rank,class,probability\n")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["image"], row["rank"]) for row in rows[:3]] == [
        ("photos/0.png", "1"), ("photos/0.png", "2"), ("photos/1.png", "1"),
    ]  # fmt: skip
    told = [each for line in predicted(photos, "--top", 2) for each in line["predictions"]]
    assert [(row["class"], float(row["probability"])) for row in rows] == [
        (each["class"], each["probability"]) for each in told
    ]


def test_a_name_of_any_bytes_is_printed(cifar, predicted, trained, photos):
    name = b"photos/two\nlines, \xff.png"
    os.rename("photos/0.png", name)
    table, rows = (cifar("predict", trained.info.run_id, photos, "--format", form).stdout for form in ("table", "csv"))
    assert table.splitlines()[-1].endswith("  photos/two\\nlines, \\udcff.png")
    assert list(csv.DictReader(io.StringIO(rows)))[-1]["image"] == "photos/two\nlines, \\udcff.png"
    assert os.fsencode(predicted(photos)[-1]["image"]) == name


def test_a_file_takes_the_output_whole(cifar, trained, photos, work):
    outcome = cifar("predict", trained.info.run_id, photos, "--output", "out.txt")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "written to out.txt\n")
    assert (work / "out.txt").read_text() == cifar("predict", trained.info.run_id, photos).stdout


def test_an_output_that_was_broken_off_leaves_what_was_there(cifar, trained, photos, work, monkeypatch):
    from cifar_mlflow.jobs import predict as job

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)

    (work / "out.txt").write_text("before")
    before = sorted(work.iterdir())
    monkeypatch.setattr(job, "line", interrupted)
    outcome = cifar("predict", trained.info.run_id, photos, "--output", "out.txt")
    assert (outcome.code, outcome.stderr.strip()) == (130, "stopped by SIGINT")
    assert (work / "out.txt").read_text() == "before"
    assert sorted(work.iterdir()) == before


@pytest.mark.parametrize(
    ("path", "message"),
    [("none/out.txt", "No such file or directory"), (".", "this is a directory"), ("", "this is a directory")],
)
def test_an_output_that_cannot_be_written_is_told_before_anything(cifar, trained, photos, path, message):
    outcome = cifar("predict", trained.info.run_id, photos, "--output", path)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr == f"error: 1 fault in the options:\n  - --output: {path} cannot be written: {message}\n"


def test_a_full_disk_is_told(cifar, trained, photos):
    outcome = cifar("predict", trained.info.run_id, photos, "--output", "/dev/full")
    assert outcome.code == 2
    assert "--output: /dev/full cannot be written: No space left on device" in outcome.stderr
    assert Path("/dev/full").is_char_device()


def test_lines_come_before_the_last_image_is_read(spawn, trained, photos, work):
    """The last image is destroyed when the first answer is there, and so it is skipped."""
    for index in range(6, 4000):
        os.link(photos / f"{index % 6}.png", photos / f"{index}.png")
    Image.fromarray(TEST_IMAGES[0]).save(photos / "last.png")
    process = spawn("predict", trained.info.run_id, photos, "--format", "csv")
    assert process.stdout.readline() == "image,rank,class,probability\n"
    assert process.stdout.readline().startswith("photos/0.png,1,")
    (photos / "last.png").write_text("no image")
    assert process.stdout.read().count("\n") == 3999
    assert process.wait(60) == 3
    assert process.stderr.read().endswith("error: 1 of 4,001 images could not be read\n")


def test_a_reader_that_leaves_ends_it_in_silence(spawn, trained, photos):
    for index in range(6, 3000):
        os.link(photos / f"{index % 6}.png", photos / f"{index}.png")
    process = spawn("predict", trained.info.run_id, photos)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141
    process.stdout = None


# -------------------------------------------------------------------------------------------------------- faults


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


class TestProjectRun:
    @pytest.fixture
    def job(self, client, trained, monkeypatch):
        run = client().create_run("0")
        monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
        return run.info.run_id

    def test_its_run_is_marked_as_a_job(self, job, cifar, client, trained, photos):
        assert cifar("predict", trained.info.run_id, photos.absolute()).code == 0
        assert client().get_run(job).data.tags["kind"] == "job"

    def test_relative_paths_are_refused(self, job, cifar, trained, photos, work):
        outcome = cifar("predict", trained.info.run_id, photos, work, "b.png")
        assert outcome.code == 2
        assert outcome.stderr.splitlines() == [
            "error: 2 faults in the paths of the images:",
            "  - 'photos' is relative; give an absolute path under `mlflow run`",
            "  - 'b.png' is relative; give an absolute path under `mlflow run`",
        ]
        outcome = cifar("predict", trained.info.run_id, photos.absolute(), "--output", "out.txt")
        assert outcome.code == 2
        assert "--output: 'out.txt' is relative; give an absolute path under `mlflow run`" in outcome.stderr
