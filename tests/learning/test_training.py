"""Training: repeatable to the last bit, over every image, and stopped when it cannot go on."""

import dataclasses
import math
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError, TrainingError
from cifar_mlflow.learning import evaluation, export, hardware
from cifar_mlflow.learning.batches import divide
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training


@pytest.fixture
def prepare(tiny):
    """A function that makes a training on the tiny dataset."""

    def make(on_step=lambda images, steps: None, dataset=None, **values):
        settings = {"dataset": str(tiny), "epochs": 2, "batch_size": 8, "precision": "float32", **values}
        config = resolve(settings)
        return Training(config, dataset or datasets.load(config), on_step=on_step)

    return make


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
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
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


class TestTheExportedModel:
    @pytest.fixture
    def trained(self, prepare):
        training = prepare(normalize=True, dropout=0.2)
        return training, list(training.epochs())[-1]

    def test_has_the_accuracy_that_was_measured(self, trained):
        training, result = trained
        model = export.classifier(training.preprocessing, training.network, training.weights())
        probabilities = evaluation.predict(model, training._held_out)
        accuracy = 100 * (probabilities.argmax(1) == training._held_out.labels.numpy()).mean()
        assert accuracy == pytest.approx(result.held_out_accuracy)

    def test_gives_probabilities_and_no_gradient(self, trained):
        training, _ = trained
        model = export.classifier(training.preprocessing, training.network, training.weights())
        answers = model(training._held_out.pixels)
        assert answers.dtype == torch.float32
        torch.testing.assert_close(answers.sum(1), torch.ones(len(answers)))
        assert not answers.requires_grad
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model.training

    def test_is_a_copy(self, trained):
        training, _ = trained
        before = training.weights()
        model = export.classifier(training.preprocessing, training.network, before)
        for parameter in model.parameters():
            parameter.data.zero_()
        assert same(before, training.weights())
        assert all(parameter.requires_grad for parameter in training.network.parameters())

    def test_can_have_earlier_weights(self, prepare):
        training = prepare()
        results = training.epochs()
        next(results)
        early = training.weights()
        images = training._held_out
        expected = evaluation.predict(export.classifier(training.preprocessing, training.network, early), images)
        next(results)
        again = export.classifier(training.preprocessing, training.network, early)
        now = export.classifier(training.preprocessing, training.network, training.weights())
        assert (evaluation.predict(again, images) == expected).all()
        assert (evaluation.predict(now, images) != expected).any()

    def test_is_the_same_after_torch_export_for_any_number_of_uint8_images(self, trained, tmp_path):
        training, _ = trained
        model = export.classifier(training.preprocessing, training.network, training.weights())
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(model, (training._held_out.pixels[:4],), dynamic_shapes=(batch,)).module()
        for count in (2, 3, 12):
            images = training._held_out.pixels[:count]
            torch.testing.assert_close(program(images), model(images))


def test_weights_are_a_copy(prepare):
    training = prepare(epochs=1)
    before = training.weights()
    list(training.epochs())
    assert not same(before, training.weights())


def test_predict_joins_its_batches_and_tells_of_them(monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", 4)
    images = datasets.LabeledImages(
        torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.zeros(10, dtype=torch.int64)
    )
    told = []
    answers = evaluation.predict(lambda pixels: pixels.flatten(1), images, told.append)
    assert answers.flatten().tolist() == list(np.arange(10))
    assert told == [4, 4, 2]


class TestHardware:
    def test_precision_is_what_is_asked_for_or_what_is_fast(self, monkeypatch):
        cpu = torch.device("cpu")
        assert hardware.choose_precision(resolve({"precision": "bfloat16"}), cpu) == torch.bfloat16
        assert hardware.choose_precision(resolve({"precision": "float32"}), cpu) == torch.float32
        for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
            monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
            assert hardware.choose_precision(resolve({}), cpu) == expected

    def test_a_device_that_is_not_there_is_refused(self):
        if torch.backends.mps.is_available():
            pytest.skip("this machine has it")
        with pytest.raises(ConfigurationError, match="--device: mps is not available here"):
            hardware.choose_device(resolve({"device": "mps"}))


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


def test_a_shift_that_leaves_nothing_of_an_image_is_refused(prepare):
    with pytest.raises(ConfigurationError, match="--shift: 8 is refused: the images have 8 pixels a side"):
        prepare(augmentation="flip_crop", shift=8)
