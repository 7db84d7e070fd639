"""Training: repeatable to the last bit, over every image, and stopped when it fails."""

import dataclasses
import math
import platform
import subprocess
import sys

import pytest
import torch

from cifar_mlflow.errors import ConfigurationError, TrainingError
from cifar_mlflow.learning.batches import divide


def measured(result):
    return [value for name, value in dataclasses.asdict(result).items() if name != "images_per_second"]


def run(training):
    return [measured(result) for result in training.epochs()], training.weights()


def same(first, second):
    return all(first[name].equal(second[name]) for name in first)


class TestRepeating:
    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"augmentation": "flip_crop", "dropout": 0.3, "normalize": True},
            {"activation": "rrelu", "scheduler": "one_cycle", "precision": "bfloat16"},
        ],
        ids=["plain", "random", "bfloat16"],
    )
    def test_gives_the_same_bits(self, prepare, values):
        (first, weights), (second, again) = run(prepare(**values)), run(prepare(**values))
        assert first == second
        assert same(weights, again)

    def test_with_another_seed_gives_others(self, prepare):
        (first, weights), (second, others) = run(prepare()), run(prepare(seed=1))
        assert first != second
        assert not same(weights, others)

    def test_does_not_depend_on_what_was_drawn_before(self, prepare):
        training = prepare()
        first = run(training)[1]
        torch.rand(100)
        assert same(first, run(prepare())[1])


class TestAnEpoch:
    def test_has_every_image_once_in_an_order_of_its_own(self, prepare, monkeypatch):
        training = prepare()
        seen, plain = [], training._logits

        def watched(pixels):
            if training.network.training:
                seen.append([image.numpy().tobytes() for image in pixels])
            return plain(pixels)

        monkeypatch.setattr(training, "_logits", watched)
        list(training.epochs())
        images = [image for batch in seen for image in batch]
        first, second = images[:108], images[108:]
        assert sorted(first) == sorted(second) == sorted(i.tobytes() for i in training._train.pixels.numpy())
        assert first != second

    def test_tells_each_step(self, prepare):
        steps = []
        list(prepare(on_step=lambda images, count: steps.append((images, count)), epochs=1).epochs())
        assert [images for images, _ in steps] == [8] * 13 + [4]
        assert {count for _, count in steps} == {14}

    def test_has_the_accuracy_and_loss_of_the_whole_held_out_split(self, prepare):
        training = prepare(validation_size=13)
        result = list(training.epochs())[-1]
        images = training._held_out
        with torch.no_grad():
            logits = training.network.eval()(training.preprocessing(images.pixels))
        assert len(images) == 13
        accuracy = 100 * (logits.argmax(1) == images.labels).double().mean().item()
        assert result.held_out_accuracy == pytest.approx(accuracy)
        loss = torch.nn.functional.cross_entropy(logits, images.labels).item()
        assert result.held_out_loss == pytest.approx(loss, rel=1e-5)

    def test_weighs_a_short_last_batch_by_its_size(self, prepare):
        # At a rate of nearly nothing, the mean over the batches is the mean over the images.
        training = prepare(learning_rate=1e-30, batch_norm=False, batch_size=100, epochs=1)
        with torch.no_grad():
            logits = training.network(training.preprocessing(training._train.pixels))
        expected = torch.nn.functional.cross_entropy(logits, training._train.labels).item()
        (result,) = training.epochs()
        assert result.train_loss == pytest.approx(expected, rel=1e-5)

    def test_scores_the_test_images_if_all_others_are_trained_on(self, prepare):
        training = prepare(validation_size=0)
        assert (len(training._train), len(training._held_out)) == (120, 30)

    def test_has_the_rate_of_its_last_step(self, prepare):
        rates = [result.learning_rate for result in prepare(step_size=1, gamma=0.5).epochs()]
        assert rates == pytest.approx([0.002, 0.001])


SECOND_EPOCH = """
import resource, sys
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning import hardware
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

config = resolve({"dataset": "digits", "validation_size": 1000, "precision": sys.argv[1], "scheduler": "none"})
hardware.keep_freed_memory()  # as the command line does
training = Training(config, datasets.load(config))
epochs = training.epochs()
next(epochs)
before = pages()
next(epochs)
print((pages() - before) / len(training._batches))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_a_step_works_in_the_memory_that_the_one_before_has_freed(precision):
    # In a process of its own, whose memory nothing else has cut up.
    command = [sys.executable, "-c", SECOND_EPOCH, precision]
    pages = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Where freed memory is given back, a step may take 6,000 pages anew.
    assert float(pages) < 1000


class TestBatches:
    @pytest.mark.parametrize(
        ("images", "size", "sizes"),
        [(10, 5, [5, 5]), (11, 5, [5, 6]), (12, 5, [5, 5, 2]), (3, 5, [3]), (1, 5, [1]), (6, 5, [6]), (3, 1, [1, 2])],
    )
    def test_a_last_one_of_a_single_image_joins_the_one_before(self, images, size, sizes):
        bounds = divide(images, size, 1)
        assert [batch.end - batch.start for batch in bounds] == sizes
        assert (bounds[0].start, bounds[-1].end) == (0, images)

    def test_that_leave_one_image_over_can_be_trained_with_batch_norm(self, prepare):
        assert len(list(prepare(batch_size=107, epochs=1).epochs())) == 1


class TestALossThatIsNotFinite:
    def test_names_the_epoch_the_step_and_the_likely_cause(self, prepare):
        training = prepare(learning_rate=1e30, optimizer="sgd", batch_norm=False, activation="relu")
        with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at epoch 1, step 2 of 14\. .*too high") as e:
            list(training.epochs())
        assert "(--learning-rate 1e+30 with --optimizer sgd); try a tenth of it" in str(e.value)

    def test_is_found_in_a_later_epoch_too(self, prepare):
        training = prepare(epochs=3)
        results = training.epochs()
        assert math.isfinite(next(results).train_loss)
        training._loss = lambda logits, labels: logits.sum() * float("nan")
        with pytest.raises(TrainingError, match="the loss is nan at epoch 2, step 1 of 14"):
            next(results)


def test_a_shift_that_leaves_nothing_of_an_image_is_refused(prepare):
    with pytest.raises(ConfigurationError, match="--shift: 8 is refused: the images have 8 pixels a side"):
        prepare(augmentation="flip_crop", shift=8)
