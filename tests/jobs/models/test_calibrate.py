"""A temperature inside a new model of the run: evaluated, named, predicted with, promoted and started from as any."""

import json
from pathlib import Path

import numpy as np
import pytest

from cifar_mlflow.analysis import calibration
from cifar_mlflow.interface.call import Weights
from cifar_mlflow.records import WEIGHTS


def calibrated(cifar, *words):
    outcome = cifar("calibrate", *words, "--format", "json")
    assert outcome.code == 0, outcome.output
    return json.loads(outcome.stdout)


def models_of(client, run_id):
    run = client().get_run(run_id)
    return {model.tags["weights"]: model for model in client().search_logged_models([run.info.experiment_id])}


def answers(client, run_id, prefix):
    return np.load(client().download_artifacts(run_id, f"{prefix}_predictions.npz"))


def test_a_calibrated_model_is_evaluated_beside_the_old_one(cifar, client, unsure):
    told = calibrated(cifar, unsure)
    run, found = client().get_run(unsure), models_of(client, unsure)
    assert told["changed"] == 0
    assert told["calibrated_validation_loss"] < told["validation_loss"]
    assert told["model_uri"] == f"models:/{found['calibrated'].model_id}"
    assert float(found["calibrated"].tags["temperature"]) == told["temperature"] == run.data.metrics["temperature"]
    assert run.data.metrics["test_accuracy"] == run.data.metrics["calibrated_test_accuracy"] == told["test_accuracy"]
    for name in ("test_calibration_error", "calibrated_test_calibration_error", "calibrated_val_calibration_error"):
        assert run.data.metrics[name] == told[name.replace("val_", "validation_")]
    assert run.data.tags["test_evaluations"] == "2"
    assert {model.model_id for model in run.outputs.model_outputs} == {each.model_id for each in found.values()}

    old, new = (answers(client, unsure, prefix) for prefix in ("test", "calibrated_test"))
    assert (old["predicted"] == new["predicted"]).all()
    expected = calibration.softmax(np.log(old["probabilities"]), told["temperature"])
    assert new["probabilities"] == pytest.approx(expected, abs=1e-5)
    files = {file.path for file in client().list_artifacts(unsure)}
    assert {"calibrated.json", "calibrated_reliability.png"} <= files


def test_it_is_logged_once_and_evaluated_once(cifar, client, unsure):
    first = calibrated(cifar, unsure)
    logged = models_of(client, unsure)["calibrated"].tags
    assert calibrated(cifar, unsure) == first
    assert models_of(client, unsure)["calibrated"].tags == logged  # the digests of its files too
    refused = cifar("calibrate", first["model_uri"])
    assert refused.code == 6
    assert f"{first['model_uri']} is calibrated already (temperature " in refused.stderr
    assert len(models_of(client, unsure)) == 3
    assert client().get_run(unsure).data.tags["test_evaluations"] == "2"


def test_one_that_was_not_logged_whole_is_logged_again(cifar, client, unsure, monkeypatch):
    from cifar_mlflow.tracking.writing import digests

    def interrupted(directory):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(digests, "tags", interrupted)
        assert cifar("calibrate", unsure).code == 130
    assert cifar("predict", unsure, Path(__file__).parent, "--weights", "calibrated").code != 0
    told = calibrated(cifar, unsure)
    (begun,) = [model for name, model in models_of(client, unsure).items() if name == "calibrated"]
    assert (told["model_uri"], str(begun.status)) == (f"models:/{begun.model_id}", "READY")


def test_those_of_the_best_epoch_have_names_of_their_own(cifar, client, unsure):
    told = calibrated(cifar, unsure, "--weights", "best")
    metrics = client().get_run(unsure).data.metrics
    assert told["weights"] == "best_calibrated"
    assert metrics["best_calibrated_test_accuracy"] == metrics["best_test_accuracy"]
    assert metrics["best_temperature"] == told["temperature"]
    assert cifar("evaluate", unsure, "--weights", "best_calibrated").code == 0


def test_it_is_promoted_predicted_with_and_started_from(cifar, client, unsure, noisy, smoke_here):
    uri = calibrated(cifar, unsure)["model_uri"]
    promoted = cifar("promote", unsure, "--weights", "calibrated", "--format", "json")
    assert promoted.code == 0, promoted.output
    verdict = json.loads(promoted.stdout)
    assert (verdict["status"], verdict["model_uri"]) == ("promoted", uri)
    named = cifar("predict", "noisy@champion", noisy, "--format", "json")
    assert named.stdout == cifar("predict", unsure, noisy, "--weights", "calibrated", "--format", "json").stdout
    assert named.stdout != cifar("predict", unsure, noisy, "--format", "json").stdout
    start = ("--dataset", noisy, "--epochs", 1, "--batch-size", 8, "--scheduler", "none", "--pretrained", uri)
    assert cifar("train", *start).code == 0
    on_validation = cifar("promote", unsure, "--weights", "calibrated", "--on", "validation")
    assert on_validation.code == 6
    assert "the temperature of its calibrated weights was fitted on the validation images" in on_validation.stderr


def test_what_cannot_be_calibrated_is_told(cifar, client, trained, tiny_training):
    run_id = trained.info.run_id
    lacking = cifar("evaluate", run_id, "--weights", "calibrated")
    assert lacking.code == 6
    assert f"has no calibrated weights (there are: best, last); `cifar-mlflow calibrate {run_id}`" in lacking.stderr
    all_right = cifar("calibrate", run_id)
    assert all_right.code == 6
    assert "all 12 of them are told right, so that any lower temperature would look better" in all_right.stderr
    assert len(models_of(client, run_id)) == 2
    on_all = cifar("train", *tiny_training, "--validation-size", 0, "--epochs", 1)
    refused = cifar("calibrate", on_all.stdout.split()[1])
    assert refused.code == 6
    assert "has no validation images to fit a temperature on" in refused.stderr


def test_both_interfaces_know_the_same_weights():
    assert Weights.__args__ == WEIGHTS
