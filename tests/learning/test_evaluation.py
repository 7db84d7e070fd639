"""Scores and averages: of which images, and in which batches."""

import math

import numpy as np
import pytest
import torch

from cifar_mlflow.learning import evaluation
from cifar_mlflow.learning.data import datasets


def test_predict_joins_its_batches_and_tells_of_them(monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", 4)
    images = datasets.LabeledImages(
        torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.zeros(10, dtype=torch.int64)
    )
    told = []
    answers = evaluation.predict(lambda pixels: pixels.flatten(1), images, told.append)
    assert answers.flatten().tolist() == list(np.arange(10))
    assert told == [4, 4, 2]


class TestAveraging:
    def test_what_is_scored_and_kept_is_the_moving_average_of_the_steps(self, prepare):
        steps = []
        averaged = prepare(
            on_step=lambda *_: steps.append(averaged.network.state_dict()["0.weight"].clone()),
            averaging="ema",
            averaging_decay=0.5,
        )
        (*_, last) = averaged.epochs()
        expected = steps[0]
        for weights in steps[1:]:
            expected = 0.5 * expected + 0.5 * weights
        found = averaged.weights()
        torch.testing.assert_close(found["0.weight"], expected)
        assert not found["0.weight"].equal(steps[-1])
        network = averaged.network.eval()
        network.load_state_dict(found)
        logits = network(averaged.preprocessing(averaged._held_out.pixels))
        correct = (logits.argmax(1) == averaged._held_out.labels).double().mean().item()
        assert last.held_out_accuracy == pytest.approx(100 * correct)

    def test_changes_nothing_of_the_steps(self, prepare):
        plain, averaged = prepare(), prepare(averaging="ema")
        losses = [[result.train_loss for result in training.epochs()] for training in (plain, averaged)]
        assert losses[0] == losses[1]


class TestScoring:
    def test_each_epoch_by_default(self, prepare):
        assert not any(math.isnan(result.held_out_accuracy) for result in prepare().epochs())

    def test_without_it_the_last_epoch_alone_and_to_the_same_number(self, prepare):
        first, last = prepare(epoch_evaluation=False).epochs()
        assert math.isnan(first.held_out_accuracy)
        assert math.isnan(first.held_out_loss)
        *_, expected = prepare().epochs()
        assert last.held_out_accuracy == expected.held_out_accuracy

    def test_without_it_the_test_images_are_never_looked_at(self, prepare, monkeypatch):
        training = prepare(epoch_evaluation=False, validation_size=0)
        training._held_out = None
        assert all(math.isnan(result.held_out_accuracy) for result in training.epochs())
