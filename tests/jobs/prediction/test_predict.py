"""`predict`: what a model sees in image files."""

import json

import numpy as np
import pytest
from PIL import Image
from support import TINY_TRAINING


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
