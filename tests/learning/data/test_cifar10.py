"""CIFAR-10's files, in a folder or an archive: read, checked, and told of when they are not good."""

import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import cifar10, datasets


def load(path="digits", **values):
    return datasets.load(resolve({"dataset": str(path), **values}))


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
        assert (CIFAR10.url, CIFAR10.tgz_md5) == (cifar10.URL, cifar10.ARCHIVE_MD5)

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
