"""Classes that are unequal: weighted in the loss, scored by the mean of their recalls, and told of."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import TINY_TRAINING, tiny_arrays
from torch import nn

from cifar_mlflow.analysis import classification
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.jobs.training import data
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.data.datasets import LabeledImages, class_weights
from cifar_mlflow.learning.evaluation import scores
from cifar_mlflow.learning.training import Training


@pytest.fixture
def unequal(work):
    """Of class 2 there is a tenth of the images to train on; to test there are as many of each."""
    arrays = tiny_arrays(train=150)
    kept = (arrays["y_train"] != 2) | (np.arange(150) % 10 == 2)
    np.savez(work / "unequal.npz", **{**arrays, "x_train": arrays["x_train"][kept], "y_train": arrays["y_train"][kept]})
    return work / "unequal.npz"


def test_weights_are_inverse_to_the_images_and_1_on_average():
    weights = class_weights(torch.tensor([0] * 60 + [1] * 30 + [2] * 10), 3)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights * torch.tensor([60.0, 30, 10])).tolist() == pytest.approx([20] * 3)


def test_weights_are_those_of_the_loss(unequal):
    images = datasets.load(resolve({"dataset": str(unequal)}))
    plain, balanced = (Training(resolve({"class_weights": kind}), images) for kind in ("none", "balanced"))
    logits, labels = torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    weights = class_weights(images.train.labels, 3)
    assert plain._loss(logits, labels) == nn.functional.cross_entropy(logits, labels)
    assert balanced._loss(logits, labels) == nn.functional.cross_entropy(logits, labels, weights)
    assert weights[2] > 3 * weights[0]


def test_balanced_accuracy_is_the_mean_recall():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], [200, 40, 10])  # of class 2 there is no image
    logits = torch.from_numpy(rng.normal(size=(250, 4)) + 2 * np.eye(4)[labels]).float()
    pixels = torch.arange(250)[:, None, None, None]
    images = LabeledImages(pixels, torch.from_numpy(labels))
    loss, accuracy, balanced, recalls = scores(lambda batch: logits[batch.flatten()], images, 4)
    score = classification.score(labels, logits.softmax(1).numpy())
    assert loss == pytest.approx(score.loss, rel=1e-5)
    assert accuracy == pytest.approx(score.accuracy)
    assert balanced == pytest.approx(np.nanmean(score.recall))
    assert balanced != pytest.approx(accuracy)
    assert recalls == pytest.approx(score.recall, nan_ok=True)


def test_a_run_tells_both_accuracies_and_can_be_compared_by_either(unequal, cifar, client, work):
    words = ("--dataset", unequal, *TINY_TRAINING)
    first = cifar("train", *words, "--class-weights", "balanced")
    assert first.code == 0, first.output
    assert "warning: the classes are unequal: '0' has" in first.stderr
    assert ", balanced " in first.stdout
    run = client().get_run(first.stdout.split()[1])
    assert run.data.params["class_weights"] == "balanced"
    history = client().get_metric_history(run.info.run_id, "val_balanced_accuracy")
    assert [point.step for point in history] == [1, 2, 3]
    assert run.data.metrics["final_val_balanced_accuracy"] == history[-1].value
    (listed,) = [each.path for each in client().list_artifacts(run.info.run_id) if "weights.csv" in each.path]
    rows = Path(client().download_artifacts(run.info.run_id, listed)).read_text().splitlines()
    assert rows[0] == "class,weight"
    assert sum(float(row.split(",")[1]) for row in rows[1:]) == pytest.approx(3)

    evaluated = cifar("evaluate", run.info.run_id)
    assert evaluated.code == 0, evaluated.output
    metrics = client().get_run(run.info.run_id).data.metrics
    recalls = [float(line.split()[2][:-1]) for line in evaluated.stdout.splitlines()[1:4]]
    assert metrics["test_balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=0.1)

    assert cifar("train", *words, "--seed", 1).code == 0
    compared = cifar("compare", "unequal", "--objective", "final_val_balanced_accuracy", "--format", "json")
    assert compared.code == 0, compared.output
    assert json.loads(compared.stdout)["objective"] == "final_val_balanced_accuracy"


def test_equal_classes_have_one_accuracy(trained_once):
    assert "balanced" not in trained_once[1].output


def test_weights_of_equal_classes_are_told_to_have_no_effect(tiny, unequal):
    def told(path, **values):
        config = resolve({"dataset": str(path), "class_weights": "balanced", **values})
        return data.without_effect(config, datasets.load(config))

    expected = "--class-weights balanced has no effect: each class has 36 images to train on"
    assert told(tiny) == [expected]
    assert told(tiny, class_weights="none") == told(unequal) == []


def test_a_sweep_can_have_it_as_its_objective(work):
    spec = parse_spec({"name": "s", "space": {"epochs": [1]}, "objective": "final_val_balanced_accuracy"}, work)
    assert spec.objective == "final_val_balanced_accuracy"
