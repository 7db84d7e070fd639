"""`evaluate`: any way to name a model, and what is written to the run that trained it."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_mlflow.learning import evaluation
from cifar_mlflow.learning.data import datasets

METRICS = {
    "test_accuracy",
    "test_loss",
    "test_balanced_accuracy",
    "test_accuracy_low",
    "test_accuracy_high",
    "test_calibration_error",
    "test_min_class_recall",
}
FILES = {
    "test_confusion_matrix.png",
    "test_mistakes.png",
    "test_confused.png",
    "test_predictions.npz",
    "test_per_class.csv",
}


@pytest.fixture
def model_id(client, trained):
    """Weights (last, best) to the id of the logged model."""
    found = [client().get_logged_model(output.model_id) for output in trained.outputs.model_outputs]
    return {model.tags["weights"]: model.model_id for model in found}


@pytest.fixture
def evaluated(cifar, client, trained):
    """A function that evaluates with some words; returns what was printed as JSON, and the run afterwards."""

    def evaluate(*words):
        outcome = cifar("evaluate", *words, "--format", "json")
        assert outcome.code == 0, outcome.output
        return json.loads(outcome.stdout), client().get_run(trained.info.run_id)

    return evaluate


def test_the_run_that_trained_gets_the_result(evaluated, client, trained):
    printed, run = evaluated(trained.info.run_id)
    assert {name for name in run.data.metrics if name.startswith("test_")} == METRICS
    assert printed["run_id"] == trained.info.run_id
    assert printed["test_accuracy"] == run.data.metrics["test_accuracy"]
    assert run.data.metrics["test_accuracy_low"] < run.data.metrics["test_accuracy"]
    assert {entry.path for entry in client().list_artifacts(trained.info.run_id)} >= FILES
    assert run.info.status == "FINISHED"


def test_the_predictions_are_those_of_the_test_images(evaluated, client, trained, tiny):
    _, run = evaluated(trained.info.run_id)
    predictions = np.load(Path(client().download_artifacts(trained.info.run_id, "test_predictions.npz")))
    labels = np.load(tiny)["y_test"]
    assert (predictions["label"] == labels).all()
    assert predictions["probabilities"].shape == (30, 3)
    assert 100 * (predictions["predicted"] == labels).mean() == pytest.approx(run.data.metrics["test_accuracy"])


def test_the_test_set_is_an_input_of_the_run(evaluated, trained):
    _, run = evaluated(trained.info.run_id)
    contexts = {tag.value: entry.dataset for entry in run.inputs.dataset_inputs for tag in entry.tags}
    assert contexts["evaluation"].digest == run.data.tags["test_digest"]
    assert set(contexts) == {"training", "evaluation"}


def test_each_look_at_the_test_set_is_counted(evaluated, trained):
    assert evaluated(trained.info.run_id)[1].data.tags["test_evaluations"] == "1"
    assert evaluated(trained.info.run_id)[1].data.tags["test_evaluations"] == "2"


def test_a_run_id_means_its_last_weights(evaluated, trained, model_id):
    assert evaluated(trained.info.run_id)[0]["model"] == f"models:/{model_id['last']}"


def test_the_best_weights_have_metrics_of_their_own(evaluated, trained, model_id):
    printed, run = evaluated(trained.info.run_id, "--weights", "best")
    assert printed["model"] == f"models:/{model_id['best']}"
    assert "best_test_accuracy" in run.data.metrics
    assert "test_accuracy" not in run.data.metrics


def test_a_model_can_be_named_by_its_id_version_or_alias(evaluated, client, model_id):
    client().create_registered_model("net")
    source = f"models:/{model_id['last']}"
    client().create_model_version("net", source, model_id=model_id["last"])
    client().set_registered_model_alias("net", "champion", "1")
    for name in (source, "models:/net/1", "models:/net@champion", "net@champion"):
        assert evaluated(name)[0]["model"] == source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ned@champion", "there is no registered model 'ned' in sqlite:///"),
        ("models:/ned/1", "(did you mean net?)"),
        ("net@camp", "has no alias camp (it has champion)"),
        ("models:/net@camp", "'net' in sqlite:///"),
        ("models:/net/2", "has no version 2 (it has 1)"),
    ],
)
def test_a_name_that_is_not_there_is_told_beside_those_that_are(cifar, client, model_id, name, message):
    client().create_registered_model("net")
    client().create_model_version("net", f"models:/{model_id['last']}", model_id=model_id["last"])
    client().set_registered_model_alias("net", "champion", "1")
    outcome = cifar("evaluate", name)
    assert outcome.code == 6
    assert message in outcome.stderr


def test_the_metrics_belong_to_the_model_too(evaluated, client, trained, model_id):
    _, run = evaluated(trained.info.run_id)
    metrics = {metric.key: metric.value for metric in client().get_logged_model(model_id["last"]).metrics}
    assert metrics["test_accuracy"] == run.data.metrics["test_accuracy"]


def test_another_test_set_has_metrics_of_its_own(evaluated, trained, write_npz):
    printed, run = evaluated(trained.info.run_id, "--dataset", write_npz("other set.npz", seed=1))
    assert printed["dataset"] == "other set"
    assert "test_other_set_accuracy" in run.data.metrics
    assert "test_accuracy" not in run.data.metrics


@pytest.mark.parametrize("views", [2, 6])
def test_several_views_of_an_image_have_metrics_of_their_own(evaluated, client, trained, views):
    printed, run = evaluated(trained.info.run_id, "--views", views)
    name = f"test_{views}_views"
    assert printed[f"{name}_accuracy"] == run.data.metrics[f"{name}_accuracy"]
    assert "test_accuracy" not in run.data.metrics
    predictions = np.load(Path(client().download_artifacts(trained.info.run_id, f"{name}_predictions.npz")))
    assert predictions["probabilities"].sum(1) == pytest.approx(1, abs=1e-5)


def test_views_that_the_model_was_not_trained_on_are_warned_of(cifar, tiny, tiny_training):
    def told(augmentation, views):
        trained = cifar("train", *tiny_training, "--augmentation", augmentation)
        assert trained.code == 0, trained.output
        return "shows mirrored images" in cifar("evaluate", trained.stdout.split()[1], "--views", views).stderr

    assert told("none", 2)
    assert not told("none", 1)
    assert not told("flip", 2)


class TestViews:
    """Seen by a stand-in for a model whose logits are the first row and column of an image's first channel."""

    def predicted(self, pixels, views):
        def model(images):
            assert images.is_contiguous() or views == 2
            return torch.cat((images[:, 0, :2, 0], images[:, :2, 0, 0]), 1).float().softmax(1)

        images = datasets.LabeledImages(pixels, torch.zeros(len(pixels), dtype=torch.int64))
        return np.log(evaluation.predict(model, images, views=views))

    def test_of_two_are_the_image_and_its_mirror(self):
        pixels = torch.tensor([[[1], [2], [3]], [[4], [5], [6]], [[7], [8], [9]]], dtype=torch.uint8)[None]
        logits = [(1 + 3) / 2, (2 + 2) / 2, (1 + 3) / 2, (4 + 6) / 2]
        expected = np.array(logits) - np.log(np.exp(logits).sum())
        assert self.predicted(pixels, 2)[0] == pytest.approx(expected, abs=1e-5)

    def test_of_six_are_shifted_by_a_pixel_too_and_weigh_half_as_much(self):
        pixels = torch.tensor([[[1], [2], [3]], [[4], [5], [6]], [[7], [8], [9]]], dtype=torch.uint8)[None]
        # Padded by reflection the rows are 5 4 5 6 5, 2 1 2 3 2, 5 4 5 6 5, 8 7 8 9 8, 5 4 5 6 5.
        views = [(1, 2, 1, 4), (3, 2, 3, 6)]
        down, up = [(5, 4, 5, 2), (5, 6, 5, 2)], [(5, 6, 5, 8), (5, 4, 5, 8)]
        logits = np.array(views).mean(0) / 2 + np.array(down + up).mean(0) / 2
        expected = logits - np.log(np.exp(logits).sum())
        assert self.predicted(pixels, 6)[0] == pytest.approx(expected, abs=1e-5)


def test_images_that_were_trained_on_are_refused(cifar, trained, tiny, write_npz):
    leaked = np.load(tiny)["x_train"][:3]
    test = np.concatenate([leaked, np.load(write_npz(seed=1))["x_test"][3:]])
    outcome = cifar("evaluate", trained.info.run_id, "--dataset", write_npz("leaky.npz", seed=1, x_test=test))
    assert outcome.code == 3
    # One of the three may be a validation image.
    assert "of the 30 test images of" in outcome.stderr
    assert "were trained on; an accuracy on them would say nothing" in outcome.stderr


def test_data_of_another_shape_are_refused(cifar, trained, write_npz):
    outcome = cifar("evaluate", trained.info.run_id, "--dataset", write_npz(size=9))
    assert outcome.code == 3
    assert "has images of (9, 9, 3) and classes 0, 1, 2; the model takes (8, 8, 3) and 0, 1, 2" in outcome.stderr


def test_a_file_of_test_images_alone_is_enough(cifar, client, trained, tiny, write_npz):
    alone = write_npz("alone.npz", seed=1, x_train=None, y_train=None)
    outcome = cifar("evaluate", trained.info.run_id, "--dataset", alone)
    assert outcome.code == 0, outcome.output
    assert "test_alone_accuracy" in client().get_run(trained.info.run_id).data.metrics
    with np.load(tiny) as file:
        np.savez(alone, x_test=file["x_train"], y_test=file["y_train"])
    assert (
        "were trained on; an accuracy on them would say nothing"
        in cifar("evaluate", trained.info.run_id, "--dataset", alone).stderr
    )
    np.savez(alone, x_test=np.zeros((2, 8, 8, 3), np.uint8), y_test=[0, 3])
    assert (
        "y_test has labels from 0 to 3; needed are 0 to 2"
        in cifar("evaluate", trained.info.run_id, "--dataset", alone).stderr
    )


@pytest.mark.parametrize("given", [".", "renamed.npz"])
def test_data_that_were_moved_are_found_where_they_are_said_to_be(
    cifar, runs, work, write_npz, tiny_training, monkeypatch, smoke_here, given
):
    write_npz("mine.npz")
    assert cifar("train", *tiny_training, "--dataset", "mine.npz", "--epochs", 1).code == 0
    (run,) = runs()
    assert run.data.params["dataset"] == str(work / "mine.npz")
    monkeypatch.chdir(work.parent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    assert cifar("evaluate", run.info.run_id).code == 0  # from another directory
    (work / "mine.npz").rename(work.parent / ("mine.npz" if given == "." else given))
    outcome = cifar("evaluate", run.info.run_id)
    assert outcome.code == 3
    assert (
        f"{work / 'mine.npz'}, on which the run {run.info.run_id} trained, is not there; say by --data-dir"
        in outcome.stderr
    )
    assert cifar("evaluate", run.info.run_id, "--data-dir", given).code == 0
    assert cifar("promote", run.info.run_id, "--data-dir", given, "--dry-run").code == 0


def test_data_that_changed_since_are_refused(cifar, runs, work, write_npz, tiny_training):
    path = write_npz("mine.npz")
    assert cifar("train", *tiny_training, "--dataset", path, "--epochs", 1).code == 0
    (run,) = runs()
    write_npz("mine.npz", seed=1)
    outcome = cifar("evaluate", run.info.run_id)
    assert outcome.code == 3
    assert f"{path} is not the data that the run {run.info.run_id} trained on (digest " in outcome.stderr
    assert run.data.tags["dataset_digest"] in outcome.stderr


def test_a_table_is_printed_for_people(cifar, trained):
    outcome = cifar("evaluate", trained.info.run_id)
    lines = outcome.stdout.splitlines()
    assert lines[0] == "class  precision  recall  images"
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert lines[-2].startswith("tiny test accuracy ")
    assert "% (95% interval " in lines[-2]
    assert lines[-1] == f"written to the run {trained.info.run_id}"


def test_csv_is_printed_for_programs(cifar, trained):
    rows = list(csv.DictReader(io.StringIO(cifar("evaluate", trained.info.run_id, "--format", "csv").stdout)))
    assert [row["class"] for row in rows] == ["0", "1", "2"]
    assert sum(int(row["images"]) for row in rows) == 30


def test_a_project_run_of_its_own_is_marked_as_a_job(cifar, client, trained, monkeypatch):
    job = client().create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", job.info.run_id)
    assert cifar("evaluate", trained.info.run_id).code == 0
    assert client().get_run(job.info.run_id).data.tags["kind"] == "job"
    assert "test_accuracy" in client().get_run(trained.info.run_id).data.metrics


def test_what_is_missing_of_a_run_is_said(cifar, trained, client, runs, tiny_training):
    assert cifar("train", *tiny_training, "--validation-size", 0, "--epochs", 1).code == 0
    run = next(run for run in runs() if run.info.run_id != trained.info.run_id)
    outcome = cifar("evaluate", run.info.run_id, "--weights", "best")
    assert outcome.code == 6
    assert f"the run {run.info.run_id} has no best weights (there are: last)" in outcome.stderr
