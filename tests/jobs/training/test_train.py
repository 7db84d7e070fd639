"""`train`: what a run leaves behind."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from recorded import artifact, artifacts, models
from support import DIVERGING

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.tracking.writing import digests

EPOCH_METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "lr", "images_per_second")


class TestAFinishedRun:
    def test_has_every_field_as_a_parameter(self, trained):
        assert set(trained.data.params) == set(TrainingConfig.model_fields)
        assert (trained.data.params["batch_size"], trained.data.params["learning_rate"]) == ("8", "0.002")

    def test_has_one_point_an_epoch_of_each_metric(self, client, trained):
        for name in EPOCH_METRICS:
            points = client().get_metric_history(trained.info.run_id, name)
            assert [point.step for point in points] == [1, 2, 3], name

    def test_has_its_summary_once(self, client, trained):
        accuracies = [point.value for point in client().get_metric_history(trained.info.run_id, "val_accuracy")]
        for name, value in (("final_val_accuracy", accuracies[-1]), ("best_val_accuracy", max(accuracies))):
            (point,) = client().get_metric_history(trained.info.run_id, name)
            assert point.value == value

    def test_has_learned(self, trained):
        assert trained.data.metrics["final_val_accuracy"] > 90

    def test_has_its_files_at_the_root(self, client, trained):
        expected = {"config.yaml", "curves.png", "class_curves.png", "confusion_matrix.png", "val_predictions.npz"}
        assert expected <= artifacts(client(), trained)

    def test_has_a_configuration_that_gives_the_same_run_again(self, client, trained):
        values = yaml.safe_load(artifact(client(), trained, "config.yaml").read_text())
        assert resolve(values).fingerprint == trained.data.tags["config_fingerprint"]

    def test_has_the_predictions_of_its_validation_images(self, client, trained, tiny):
        predictions = np.load(artifact(client(), trained, "val_predictions.npz"))
        labels = np.load(tiny)["y_train"][predictions["index"]]
        assert predictions["label"].tolist() == labels.tolist()
        assert predictions["predicted"].tolist() == predictions["probabilities"].argmax(1).tolist()
        accuracy = 100 * (predictions["predicted"] == labels).mean()
        assert accuracy == pytest.approx(trained.data.metrics["final_val_accuracy"])

    def test_tells_where_it_came_from(self, trained):
        tags = trained.data.tags
        assert tags["kind"] == "single"
        assert tags["threads_used"].isdigit()
        assert tags["git_dirty"] in ("true", "false") if "git_dirty" in tags else "unknown" in tags["git_commit"]
        versions = ("version_torch", "version_cuda", "version_cifar_mlflow")
        for name in (*versions, "hardware", "device", "precision_used", "kernels_used"):
            assert tags[name]
        assert "trains_on_all" not in tags
        assert "failure" not in tags

    def test_has_its_dataset_as_an_input(self, trained, tiny):
        (entry,) = trained.inputs.dataset_inputs
        assert entry.dataset.name == "tiny"
        assert entry.dataset.digest == trained.data.tags["dataset_digest"]
        assert json.loads(entry.dataset.source) == {"uri": str(tiny)}
        assert json.loads(entry.dataset.profile) == {"train": 108, "validation": 12, "test": 30}
        assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]

    def test_has_two_models_with_their_epoch_and_metric(self, client, trained):
        steps = {output.model_id: output.step for output in trained.outputs.model_outputs}
        history = [point.value for point in client().get_metric_history(trained.info.run_id, "val_accuracy")]
        found = models(client(), trained)
        assert set(found) == {"last", "best"}
        assert steps[found["last"].model_id] == 3
        assert steps[found["best"].model_id] == 1 + int(np.argmax(history))
        for weights, metric in (("last", "final_val_accuracy"), ("best", "best_val_accuracy")):
            assert found[weights].name == f"report_cnn-prelu-{weights}"
            (point,) = found[weights].metrics
            assert (point.key, point.value) == (metric, trained.data.metrics[metric])

    def test_is_described_in_a_sentence(self, trained):
        note = trained.data.tags["mlflow.note.content"]
        assert note.startswith(
            "report_cnn with prelu on tiny (108 training images): adam at 0.002 with a constant rate"
        )
        assert f"Validation accuracy after the last epoch: {trained.data.metrics['final_val_accuracy']:.2f}%" in note

    def test_ends_with_what_to_type_next(self, trained_once, trained):
        run_id = trained.info.run_id
        lines = trained_once[1].stdout.splitlines()
        assert lines[0] == f"run       {run_id} (tiny-prelu-adam-seed0)"
        assert f"evaluate  cifar-mlflow evaluate {run_id}" in lines
        assert lines[-1] == f"done: tiny, validation accuracy {trained.data.metrics['final_val_accuracy']:.2f}%"


def test_a_run_that_is_never_scored_says_so(cifar, runs, tiny_training):
    outcome = cifar("train", *tiny_training, "--validation-size", 0, "--epoch-evaluation", "false")
    assert outcome.code == 0, outcome.output
    assert "warning: --validation-size 0 trains on all images: no epoch is scored" in outcome.stderr
    assert "accuracy  not scored yet" in outcome.stdout
    (run,) = runs()
    assert not any("test" in name or "val" in name for name in run.data.metrics)
    assert run.data.metrics["train_accuracy"] > 0
    evaluated = cifar("evaluate", run.info.run_id)
    assert evaluated.code == 0, evaluated.output


def test_without_evaluation_of_epochs_the_last_is_scored(cifar, client, runs, tiny_training):
    outcome = cifar("train", *tiny_training, "--epoch-evaluation", "false")
    assert outcome.code == 0, outcome.output
    (run,) = runs()
    (point,) = client().get_metric_history(run.info.run_id, "val_accuracy")
    assert point.step == 3
    assert run.data.metrics["final_val_accuracy"] == run.data.metrics["best_val_accuracy"] == point.value
    assert len(client().get_metric_history(run.info.run_id, "train_accuracy")) == 3


def test_a_last_epoch_that_was_the_best_gives_two_models_alike_but_in_name(cifar, client, runs, tiny_training):
    assert cifar("train", *tiny_training, "--epochs", 1).code == 0
    (run,) = runs()
    found = models(client(), run)
    assert {weights: model.name for weights, model in found.items()} == {
        "last": "report_cnn-prelu-last", "best": "report_cnn-prelu-best"
    }  # fmt: skip
    answers = {}
    for weights, model in found.items():
        (point,) = model.metrics
        assert point.key == {"last": "final_val_accuracy", "best": "best_val_accuracy"}[weights]
        directory = mlflow.artifacts.download_artifacts(f"models:/{model.model_id}")
        saved = mlflow.models.Model.load(directory)
        assert saved.model_id == model.model_id
        assert (saved.metadata["name"], saved.metadata["weights"]) == (model.name, weights)
        assert not digests.differences(Path(directory), model.tags)
        loaded = mlflow.pyfunc.load_model(directory)
        answers[weights] = loaded.predict(loaded.input_example)
    assert np.array_equal(answers["last"], answers["best"])


def test_training_on_all_images_names_the_test_set(cifar, client, runs, tiny_training):
    outcome = cifar("train", *tiny_training, "--validation-size", 0, "--epochs", 1)
    (run,) = runs()
    assert "warning: --validation-size 0 trains on all images" in outcome.stderr
    assert outcome.stdout.splitlines()[-1].startswith("done: tiny, test accuracy ")
    assert run.data.tags["trains_on_all"] == "true"
    assert {"epoch_test_accuracy", "epoch_test_loss"} <= set(run.data.metrics)
    assert not [name for name in run.data.metrics if "val" in name or name.startswith("test_")]
    assert set(models(client(), run)) == {"last"}
    assert "curves.png" in artifacts(client(), run)
    assert "val_predictions.npz" not in artifacts(client(), run)


def test_the_same_command_gives_the_same_run(cifar, client, runs, trained, tiny_training):
    cifar("train", *tiny_training)
    again = next(run for run in runs() if run.info.run_id != trained.info.run_id)
    assert again.data.tags["run_fingerprint"] == trained.data.tags["run_fingerprint"]
    for name in ("val_loss", "train_loss", "val_accuracy", "train_accuracy"):
        first, second = (
            [point.value for point in client().get_metric_history(run.info.run_id, name)] for run in (trained, again)
        )
        assert first == second, name
    first, second = (np.load(artifact(client(), run, "val_predictions.npz")) for run in (trained, again))
    assert (first["probabilities"] == second["probabilities"]).all()


class TestTheExperiment:
    @pytest.fixture
    def name_after(self, cifar, client, runs, tiny):
        """A function that trains with some options and returns the experiment's name and the run's."""

        def train(*options):
            before = {run.info.run_id for run in runs()}
            outcome = cifar("train", "--dataset", tiny, *DIVERGING, *options)
            (run,) = [run for run in runs() if run.info.run_id not in before]
            assert outcome.code == 5  # quickly: it diverges in its first step
            return client().get_experiment(run.info.experiment_id).name, run.info.run_name

        return train

    def test_and_run_are_named_after_the_data_and_the_configuration(self, name_after):
        assert name_after("--seed", 7) == ("tiny", "tiny-relu-sgd-seed7")

    def test_and_data_are_told_of_a_batch_that_is_larger_than_all_images(self, cifar, tiny):
        outcome = cifar("train", "--dataset", tiny, *DIVERGING, "--batch-size", 109)
        told = "warning: --batch-size 109 has no effect beyond 108: each epoch is one step of all 108 training images"
        assert told in outcome.stderr

    def test_and_run_can_be_named(self, name_after):
        assert name_after("--experiment", "mine", "--run-name", "first") == ("mine", "first")

    def test_may_come_from_mlflows_variables(self, name_after, client, monkeypatch):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
        assert name_after()[0] == "theirs"
        assert name_after("--experiment", "mine")[0] == "mine"
        monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client().get_experiment_by_name("theirs").experiment_id)
        assert name_after()[0] == "theirs"


def test_names_must_not_be_empty(cifar, tiny_training):
    outcome = cifar("train", *tiny_training, "--experiment", "", "--run-name", " ")
    assert outcome.code == 2
    assert "--experiment: must not be empty" in outcome.stderr
    assert "--run-name: must not be empty" in outcome.stderr
