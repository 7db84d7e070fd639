"""Datasets: read whole, checked, split the same way each time, and told apart by their digest."""

import hashlib
import io
import pickle
import tarfile
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from support import tiny_arrays
from torchvision.datasets import CIFAR10

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError, DataError
from cifar_mlflow.learning.data import cifar10, datasets
from cifar_mlflow.learning.data.datasets import LabeledImages, overlap, stratified_indices


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


def fake_cifar10(batch):
    """The files of a tiny CIFAR-10, by name; the first image of each batch is red, green and blue in its first row.

    Their words are bytes, as Python 3 reads what Python 2 wrote.
    """
    rng = np.random.default_rng(0)
    files = {"batches.meta": pickle.dumps({b"label_names": [b"class%d" % number for number in range(10)]})}
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        pixels = rng.integers(0, 256, (batch, 3072), dtype=np.uint8)
        pixels[0, [0, 1025, 2050]] = 255
        pixels[0, [1024, 2048, 1, 2049, 2, 1026]] = 0
        files[name] = pickle.dumps({b"data": pixels, b"labels": [number % 10 for number in range(batch)]})
    return files


@pytest.fixture
def files(monkeypatch):
    """The files of a tiny CIFAR-10, which are the official ones for this test."""
    found = fake_cifar10(batch=20)
    monkeypatch.setattr(cifar10, "IMAGES_IN_A_FILE", 20)
    official = {name: hashlib.md5(content).hexdigest() for name, content in found.items()}
    for part in ("BATCHES", "META"):
        monkeypatch.setattr(cifar10, part, {name: official[name] for name in getattr(cifar10, part)})
    return found


def write_folder(directory, files):
    for name, content in files.items():
        path = directory / "cifar-10-batches-py" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def write_archive(directory, files):
    with tarfile.open(directory / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


WRITERS = pytest.mark.parametrize("write", [write_folder, write_archive])


class TestCifar10:
    @WRITERS
    def test_is_read_from_a_folder_or_an_archive(self, files, work, write):
        write(work, files)
        cifar = load("cifar10", data_dir=str(work))
        assert (len(cifar.train), len(cifar.validation), len(cifar.test)) == (90, 10, 20)
        assert cifar.classes[3] == "class3"
        assert cifar.test.labels.tolist() == [number % 10 for number in range(20)]
        assert cifar.test.pixels[0, 0, :3].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]

    def test_is_the_same_from_either(self, files, work):
        digests = []
        for name, write in (("one", write_folder), ("other", write_archive)):
            (work / name).mkdir()
            write(work / name, files)
            digests.append(load("cifar10", data_dir=str(work / name)).digest)
        assert digests[0] == digests[1]

    @WRITERS
    @pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
    def test_with_a_changed_byte_names_the_file_and_never_unpickles_it(self, files, work, write, name):
        files[name] = files[name][:-10] + b"x" + files[name][-9:]
        write(work, files)
        with pytest.raises(DataError, match=f"{name} is not the official file"):
            load("cifar10", data_dir=str(work))

    @WRITERS
    def test_with_a_file_missing_names_it(self, files, work, write):
        del files["data_batch_2"]
        write(work, files)
        with pytest.raises(DataError, match="data_batch_2 is missing"):
            load("cifar10", data_dir=str(work))

    def test_is_what_torchvision_takes_it_for(self):
        assert [[name, md5] for name, md5 in cifar10.BATCHES.items()] == CIFAR10.train_list + CIFAR10.test_list
        meta = {"filename": "batches.meta", "key": "label_names", "md5": cifar10.META["batches.meta"]}
        assert meta == CIFAR10.meta

    def test_is_found_by_the_environment_variable(self, files, work, monkeypatch):
        write_folder(work, files)
        monkeypatch.setenv("CIFAR_MLFLOW_DATA", str(work))
        assert load("cifar10").source == str(work / "cifar-10-batches-py")

    def test_may_be_named_by_its_own_folder(self, files, work):
        write_folder(work, files)
        assert len(load("cifar10", data_dir=str(work / "cifar-10-batches-py")).test) == 20

    def test_is_found_in_the_cache(self, files, tmp_path, monkeypatch):
        monkeypatch.delenv("CIFAR_MLFLOW_DATA", raising=False)
        cache = tmp_path / "cache" / "cifar-mlflow"
        cache.mkdir(parents=True)
        write_archive(cache, files)
        assert load("cifar10").source == str(cache / "cifar-10-python.tar.gz")

    def test_is_the_real_one(self, cifar10_directory):
        cifar = load("cifar10", data_dir=str(cifar10_directory))
        assert (len(cifar.train), len(cifar.validation), len(cifar.test)) == (45_000, 5_000, 10_000)
        assert cifar.image_shape == (32, 32, 3)
        assert cifar.classes[:3] == ("airplane", "automobile", "bird")
        assert cifar.test.labels[:4].tolist() == [3, 8, 8, 0]
        assert torch.bincount(cifar.validation.labels).tolist() == [500] * 10
        means, deviations = cifar.channel_statistics()
        assert means == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
        assert deviations == pytest.approx((0.2470, 0.2435, 0.2616), abs=1e-3)


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
        chosen = stratified_indices(labels, count, seed)
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
