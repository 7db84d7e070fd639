"""Steps of several batches, of a gradient that is cut, of mixed images; trainings that end before their last epoch."""

import dataclasses
import io
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cifar_mlflow.config.rules import batch_warning, resolve, without_effect
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning import stopping, training
from cifar_mlflow.learning.batches import divide
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.stopping import Stopping
from cifar_mlflow.learning.training import Training

# Of 108 images to train on, 8 a batch, the last one has 4.
SETTINGS = {"batch_size": 8, "epochs": 2, "precision": "float32", "accelerate": "none"}
PLAIN = {"batch_norm": False, "optimizer": "sgd", "learning_rate": 0.1, "scheduler": "none"}


@pytest.fixture
def prepare(tiny):
    def make(on_check=lambda: None, last_epoch=None, **values):
        config = resolve({"dataset": str(tiny), **SETTINGS, **values})
        return Training(config, datasets.load(config), on_check=on_check, last_epoch=last_epoch)

    return make


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def stored(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def measured(result):
    return [value for name, value in dataclasses.asdict(result).items() if name != "images_per_second"]


class TestAccumulation:
    @pytest.mark.parametrize(
        ("images", "size", "accumulate", "shares"),
        [
            (8, 2, 1, [1, 1, 1, 1]),
            (8, 2, 2, [1 / 2, 1 / 2, 1 / 2, 1 / 2]),
            (10, 2, 3, [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2]),  # what is left at the end is a step of its own
            (9, 2, 3, [1 / 3, 1 / 3, 1 / 3, 1]),
            (7, 4, 2, [4 / 7, 3 / 7]),
            (5, 8, 4, [1]),
        ],
    )  # fmt: skip
    def test_gives_each_image_of_a_step_the_same_weight(self, images, size, accumulate, shares):
        batches = divide(images, size, accumulate)
        assert [batch.share for batch in batches] == pytest.approx(shares)
        assert [batch.end for batch in batches[:-1]] == [batch.start for batch in batches[1:]]
        assert batches[-1].ends_step
        assert batches[-1].end == images
        assert sum(batch.share for batch in batches) == pytest.approx(sum(batch.ends_step for batch in batches))

    @pytest.mark.parametrize("accumulate", [2, 3, 14, 50])
    def test_steps_as_with_the_large_batch(self, prepare, accumulate):
        """Of batches that the images fill alike, and of the rest that they do not."""
        small = prepare(**PLAIN, accumulate=accumulate)
        large = prepare(**PLAIN, batch_size=8 * accumulate)
        for session in (small, large):
            list(session.epochs())
        for name, tensor in large.weights().items():
            torch.testing.assert_close(small.weights()[name], tensor, rtol=1e-4, atol=1e-6)

    def test_has_fewer_steps_of_the_schedule_and_the_average(self, prepare):
        session = prepare(scheduler="one_cycle", accumulate=4, averaging="ema")
        list(session.epochs())
        steps = 2 * 4  # 14 batches an epoch
        assert session._schedule.state()["last_epoch"] == steps
        assert int(session._average.n_averaged) == steps

    def test_is_taken_up_between_two_steps_alone_and_to_the_same_bits(self, prepare, monkeypatch):
        monkeypatch.setattr(training, "STEPS_BETWEEN_CHECKS", 2)
        states = []
        values = {"accumulate": 3, "scheduler": "one_cycle", "clip_grad": 0.5}
        whole = prepare(on_check=lambda: states.append(stored(whole.state())), **values)
        results = [measured(result) for result in whole.epochs()]
        assert [state["in_progress"]["steps"] for state in states] == [3, 6, 9, 12] * 2
        for state in (states[1], states[-1]):
            again = prepare(**values)
            again.restore(state)
            rest = [measured(result) for result in again.epochs()]
            assert rest == results[-len(rest) :]
            assert same(again.weights(), whole.weights())

    def test_beyond_an_epoch_has_no_effect_and_that_is_told(self):
        assert batch_warning(resolve({"accumulate": 14, "batch_size": 8}), 108) is None
        told = batch_warning(resolve({"accumulate": 15, "batch_size": 8}), 108)
        assert told == "--accumulate 15 has no effect beyond 14: each epoch is one step of all 14 batches"


class TestClipping:
    def test_is_torchs_of_the_whole_step(self, prepare, monkeypatch):
        seen = []

        def watched(parameters, most):
            parameters = list(parameters)
            before = [parameter.grad.clone() for parameter in parameters]
            norm = clip(parameters, most)
            seen.append((before, [parameter.grad.clone() for parameter in parameters], most, norm))

        clip = nn.utils.clip_grad_norm_
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", watched)
        session = prepare(**PLAIN, clip_grad=0.05, epochs=1, accumulate=2)
        at_first = {name: tensor.clone() for name, tensor in session.network.state_dict().items()}
        list(session.epochs())
        assert len(seen) == 7
        for before, after, most, norm in seen:
            total = torch.stack([gradient.norm() for gradient in after]).norm()
            assert most == 0.05
            torch.testing.assert_close(total, norm.clamp(max=0.05), rtol=1e-3, atol=1e-6)
            if norm <= 0.05:
                assert all(one.equal(other) for one, other in zip(before, after, strict=True))
        moved = torch.stack(
            [(at_first[name] - now).norm() for name, now in session.network.state_dict().items()]
        ).norm()
        assert 0 < moved <= 7 * 0.1 * 0.05 * 1.001

    def test_that_cuts_nothing_changes_nothing(self, prepare):
        free, wide = prepare(), prepare(clip_grad=1e6)
        for session in (free, wide):
            list(session.epochs())
        assert same(free.weights(), wide.weights())


@pytest.mark.parametrize(
    "values",
    [
        {"mix": "mixup", "dropout": 0.1},
        {"mix": "cutmix", "label_smoothing": 0.1, "augmentation": "random_resized_crop"},
        {"augmentation": "random_erasing", "shift": 2, "mix": "mixup", "accumulate": 2},
        {"augmentation": "trivial_augment", "shift": 2},
        {"freeze": "backbone", "mix": "cutmix"},
        {"backbone_rate": 0.1, "bias_rate": 2, "clip_grad": 1},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_what_is_random_or_kept_is_taken_up_to_the_same_bits(prepare, monkeypatch, values):
    monkeypatch.setattr(training, "STEPS_BETWEEN_CHECKS", 4)
    states = []
    whole = prepare(on_check=lambda: states.append(stored(whole.state())), **values)
    results = [measured(result) for result in whole.epochs()]
    assert len({json.dumps(result) for result in results}) == 2
    for state in (states[0], states[-1]):
        torch.rand(5)
        again = prepare(**values)
        again.restore(state)
        rest = [measured(result) for result in again.epochs()]
        assert rest == results[-len(rest) :]
        assert same(again.weights(), whole.weights())


class TestPatience:
    def stopping(self, accuracies, **values):
        found = Stopping(resolve({"scheduler": "none", "epochs": 9, **values}))
        for epoch, accuracy in enumerate(accuracies, 1):
            if found.reason:
                return epoch - 1, found.reason
            found.is_last(epoch)
            found.after(epoch, accuracy)
        return len(accuracies), found.reason

    @pytest.mark.parametrize(
        ("accuracies", "ended"),
        [
            ([1, 2, 3, 4, 5, 6, 7, 8, 9], (9, "")),
            ([5, 4, 5, 6], (3, "for 2 epochs (--patience) none was better than epoch 1")),  # as good is not better
            ([1, 2, 1, 3, 2, 2, 9], (6, "for 2 epochs (--patience) none was better than epoch 4")),
            ([1, 2, 3, 4, 5, 6, 7, 7, 7], (9, "")),  # that was the last in any case
        ],
    )
    def test_is_lost_after_so_many_epochs_without_a_better_one(self, accuracies, ended):
        assert self.stopping(accuracies, patience=2) == ended

    def test_ends_the_training_and_is_taken_up(self, prepare):
        values = {"patience": 2, "epochs": 30, "learning_rate": 1e-9, "scheduler": "none"}
        whole = prepare(**values)
        epochs = whole.epochs()
        results = [measured(next(epochs))]
        state = stored(whole.state())
        results += map(measured, epochs)
        assert 3 <= len(results) < 30
        assert "--patience" in whole.stopping.reason
        again = prepare(**values)
        again.restore(state)
        assert [measured(result) for result in again.epochs()] == results[1:]
        ended = prepare(**values)
        ended.restore(stored(whole.state()))
        assert list(ended.epochs()) == []
        assert ended.stopping.reason == whole.stopping.reason

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            *(({"scheduler": name}, f"cannot be combined with --scheduler {name}") for name in
              ("cosine", "one_cycle", "triangular")),
            ({"validation_size": 0}, "the test images would say when to end"),
            ({"epoch_evaluation": False}, "--epoch-evaluation false leaves out the scores"),
        ],
    )  # fmt: skip
    def test_does_not_go_with(self, values, told):
        with pytest.raises(ConfigurationError, match=told):
            resolve({"patience": 3, **values})

    @pytest.mark.parametrize("name", ["none", "step", "multistep", "exponential"])
    def test_goes_with(self, name):
        resolve({"patience": 3, "scheduler": name})

    def test_that_is_never_lost_has_no_effect(self):
        (told,) = without_effect(resolve({"patience": 4, "epochs": 4, "scheduler": "none"}))
        assert told == "--patience 4 has no effect: the run has 4 epochs"


class TestMinutes:
    @pytest.fixture
    def clock(self, monkeypatch):
        """The seconds that have passed, which the test sets."""
        passed = [0.0]
        monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: passed[0]))
        return passed

    def test_that_have_passed_end_it_with_the_epoch(self, prepare, clock):
        session = prepare(max_minutes=1, epochs=5, epoch_evaluation=False)
        results = []
        for result in session.epochs():
            results.append(result)
            clock[0] += 25
        assert [result.epoch for result in results] == [1, 2, 3, 4]
        assert session.stopping.reason == "--max-minutes 1 have passed"
        # The last is scored, though nobody knew before that it was.
        assert [result.held_out_accuracy >= 0 for result in results] == [False, False, False, True]

    def test_count_before_and_after_it_was_broken_off(self, prepare, clock):
        session = prepare(max_minutes=1, epochs=5)
        next(session.epochs())
        clock[0] += 50
        state = stored(session.state())
        clock[0] += 1000
        again = prepare(max_minutes=1, epochs=5)
        again.restore(state)
        clock[0] += 11
        assert [result.epoch for result in again.epochs()] == [2]

    def test_are_not_asked_for_where_the_last_epoch_is_known(self, prepare, clock):
        session = prepare(max_minutes=1, epochs=5, last_epoch=3)
        clock[0] += 1000
        assert [result.epoch for result in session.epochs()] == [1, 2, 3]
        assert session.stopping.reason

    def test_that_are_many_change_nothing(self, prepare, clock):
        free, limited = prepare(), prepare(max_minutes=1000)
        for session in (free, limited):
            list(session.epochs())
        assert same(free.weights(), limited.weights())
        assert limited.stopping.reason == ""
