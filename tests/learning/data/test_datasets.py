"""Datasets: read whole, checked, split the same way each time, and told of when they are not good."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from support import tiny_arrays

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError, DataError
from cifar_mlflow.learning.data import datasets, splitting
from cifar_mlflow.learning.data.datasets import LabeledImages, overlap


def load(path="digits", **values):
    return datasets.load(resolve({"dataset": str(path), **values}))


class TestDigits:
    def test_are_scikit_learns_at_the_size_of_cifar10(self):
        digits = load()
        assert digits.classes == tuple("0123456789")
        assert digits.image_shape == (32, 32, 3)
        assert len(digits.train) + len(digits.validation) + len(digits.test) == 1797
        assert len(digits.test) == 364
        assert digits.train.pixels.dtype == torch.uint8
        assert (digits.train.pixels.min(), digits.train.pixels.max()) == (0, 255)

    def test_have_the_pixels_and_labels_that_scikit_learn_loads(self):
        digits, theirs = load(validation_size=0), load_digits()
        ours = torch.cat([digits.train.pixels, digits.test.pixels])[:, ::4, ::4, 0].double() * 16 / 255
        labels = torch.cat([digits.train.labels, digits.test.labels])
        found = sorted(
            (int(label), *map(int, image.round().flatten())) for label, image in zip(labels, ours, strict=True)
        )
        assert found == sorted(
            (int(label), *map(int, image.flatten())) for label, image in zip(theirs.target, theirs.images, strict=True)
        )

    def test_without_scikit_learn_are_missed_in_one_message(self, monkeypatch):
        monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(DataError, match="come with the package sklearn, which is not installed here"):
            load()

    def test_of_training_validation_and_test_are_different_images_as_far_as_they_can_be(self):
        digits = load()
        assert overlap(digits.test, digits.train) == overlap(digits.validation, digits.train) == 0


class TestNpz:
    def test_is_the_users_own_images(self, tiny):
        own = load(tiny)
        assert (own.name, own.source, own.classes) == ("tiny", str(tiny), ("0", "1", "2"))
        assert own.test.pixels.numpy().tobytes() == np.load(tiny)["x_test"].tobytes()

    def test_may_name_its_classes(self, write_npz):
        assert load(write_npz(classes=np.array(["cat", "dog", "axolotl"]))).classes == ("cat", "dog", "axolotl")

    def test_may_be_gray(self, write_npz):
        assert load(write_npz(channels=1)).image_shape == (8, 8, 1)

    def test_may_stand_in_the_home_directory(self, write_npz, work, monkeypatch):
        write_npz("mine.npz")
        monkeypatch.setenv("HOME", str(work))
        assert load("~/mine.npz").name == "mine"

    @pytest.mark.parametrize(("images", "held_out"), [(3, 1), (5, 1), (15, 2)])
    def test_of_few_images_hold_out_one_at_least(self, write_npz, images, held_out):
        few = load(
            write_npz(
                x_train=tiny_arrays()["x_train"][:images], y_train=np.arange(images) % 2, y_test=np.arange(30) % 2
            )
        )
        assert (len(few.train), len(few.validation)) == (images - held_out, held_out)

    def test_of_two_images_can_hold_out_none(self, write_npz):
        x = tiny_arrays()["x_train"][:2]
        with pytest.raises(
            ConfigurationError, match=r"auto, which is 1, leaves fewer than 2 of 2 images.*give at most 0"
        ):
            load(write_npz(x_train=x, y_train=np.arange(2), y_test=np.arange(30) % 2))

    def test_with_pickled_arrays_names_each_and_how_to_save_it(self, write_npz):
        words = np.array(["cat", "dog", "axolotl"], dtype=object)
        with pytest.raises(DataError) as raised:
            load(write_npz(classes=words, y_test=np.array([0, 1] * 15, dtype=object)))
        told = str(raised.value)
        assert "y_test holds Python objects" in told
        assert "save it as y_test.astype(int)" in told
        assert "save it as classes.astype(str)" in told
        assert load(write_npz(classes=words.astype(str))).classes == tuple(words)

    def test_with_all_that_is_wrong_told_together(self, write_npz):
        with pytest.raises(DataError) as raised:
            load(write_npz(x_train=np.zeros((120, 8, 8, 3)), y_test=np.zeros((30, 1))))
        assert str(raised.value).count("\n  - ") == 2


class TestTheSplit:
    def test_is_a_tenth_unless_a_number_is_given(self, tiny):
        assert len(load(tiny).validation) == 12
        assert len(load(tiny, validation_size=30).validation) == 30

    def test_has_each_image_once(self, tiny):
        own = load(tiny, validation_size=30)
        every = np.concatenate([own.train.pixels.numpy(), own.validation.pixels.numpy()])
        assert sorted(image.tobytes() for image in every) == sorted(i.tobytes() for i in np.load(tiny)["x_train"])
        held_out = np.load(tiny)["x_train"][own.validation_indices]
        assert held_out.tobytes() == own.validation.pixels.numpy().tobytes()

    def test_is_drawn_by_the_split_seed_and_not_by_the_seed(self, tiny):
        first = load(tiny).validation_indices
        assert (load(tiny, seed=5).validation_indices == first).all()
        assert (load(tiny, split_seed=5).validation_indices != first).any()

    def test_may_hold_nothing_out(self, tiny):
        own = load(tiny, validation_size=0)
        assert (len(own.train), len(own.validation), len(own.validation_indices)) == (120, 0, 0)

    def test_leaves_two_images_to_train_on(self, tiny):
        assert len(load(tiny, validation_size=118).train) == 2
        with pytest.raises(ConfigurationError, match="--validation-size: 119 leaves fewer than 2 of 120"):
            load(tiny, validation_size=119)

    @given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.data(), st.integers(0, 9))
    def test_has_each_class_in_proportion(self, labels, draw, seed):
        labels = np.array(labels)
        count = draw.draw(st.integers(0, len(labels)))
        chosen = splitting.stratified_indices(labels, count, seed)
        assert len(set(chosen.tolist())) == len(chosen) == count
        assert (np.diff(chosen) > 0).all()
        for label in set(labels.tolist()):
            exact = count * (labels == label).mean()
            assert abs((labels[chosen] == label).sum() - exact) < 1


class TestTheDigest:
    def test_fits_into_mlflows_field(self, tiny):
        assert len(load(tiny).digest) <= 36

    def test_is_that_of_the_content_and_not_of_the_file(self, tiny, write_npz):
        assert load(write_npz("renamed.npz")).digest == load(tiny).digest

    @pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
    def test_changes_with_any_value(self, tiny, write_npz, name):
        changed = np.load(tiny)[name].copy()
        changed.flat[-1] = (changed.flat[-1] + 1) % 3
        new, old = load(write_npz(**{name: changed})), load(tiny)
        assert new.digest != old.digest
        assert (new.test_digest != old.test_digest) == name.endswith("test")

    def test_changes_with_the_split_and_the_class_names(self, tiny, write_npz):
        named = load(write_npz(classes=np.array(["a", "b", "c"])))
        other = load(write_npz(classes=np.array(["a", "b", "d"])))
        assert len({load(tiny).digest, load(tiny, split_seed=1).digest, named.digest, other.digest}) == 4

    def test_does_not_depend_on_the_integer_type_of_the_labels(self, tiny, write_npz):
        labels = np.load(tiny)["y_train"].astype(np.uint8)
        assert load(write_npz(y_train=labels)).digest == load(tiny).digest


def test_overlap_counts_equal_images():
    def images(values):
        return LabeledImages(torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(len(values)))

    assert overlap(images([1, 2, 3, 3]), images([3, 4])) == 2
    assert overlap(images([1, 2]), images([3, 4])) == 0


def test_channel_statistics_are_the_mean_and_deviation(tiny):
    own = load(tiny)
    shares = own.train.pixels.numpy() / 255
    means, deviations = own.channel_statistics()
    assert means == pytest.approx(shares.mean((0, 1, 2)))
    assert deviations == pytest.approx(shares.std((0, 1, 2)))


def test_the_overlap_is_counted_without_a_copy_of_the_images():
    pixels = torch.randint(0, 256, (3000, 32, 32, 3), dtype=torch.uint8)
    train, test = (LabeledImages(each, torch.zeros(len(each))) for each in (pixels, pixels[2000:].clone()))
    tracemalloc.start()
    try:
        assert overlap(test, train) == 1000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # the images are 12 MB
    finally:
        tracemalloc.stop()
