"""Datasets with a name, by torchvision's loaders: Fashion-MNIST's real files, files of their format of the others."""

import gzip
import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets

from cifar_mlflow.config.rules import resolve, without_effect
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import datasets, named

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES = 20


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing is fetched, wherever the tests run; nor found where CIFAR-10 is."""
    monkeypatch.delenv("CIFAR_MLFLOW_DATA", raising=False)
    monkeypatch.setattr(named, "SYSTEM", Path("/nowhere"))

    def unreachable(*arguments, **named):
        raise OSError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


def load(name, data_dir="auto"):
    return datasets.load(resolve({"dataset": name, "data_dir": str(data_dir)}))


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def mnist_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for part in ("train", "t10k"):
        files[f"{part}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (IMAGES, 28, 28), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte.gz"] = idx((np.arange(IMAGES) % 10).astype(np.uint8))
    return files


def cifar100_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {"meta": pickle.dumps({"fine_label_names": [f"kind{number}" for number in range(10)]})}
    for part in ("train", "test"):
        pixels = rng.integers(0, 256, (IMAGES, 3072), dtype=np.uint8)
        pixels[0, [0, 1024, 2048]] = [1, 2, 3]  # red, green and blue of the first pixel
        files[part] = pickle.dumps({"data": pixels, "fine_labels": [number % 10 for number in range(IMAGES)]})
    return files


def svhn_files(directory: Path) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for part in ("train", "test"):
        pixels = rng.integers(0, 256, (32, 32, 3, IMAGES), dtype=np.uint8)
        labels = np.arange(IMAGES)[:, None] % 10
        scipy.io.savemat(directory / "x.mat", {"X": pixels, "y": np.where(labels == 0, 10, labels).astype(np.uint8)})
        files[f"{part}_32x32.mat"] = (directory / "x.mat").read_bytes()
    return files


@pytest.fixture
def files(monkeypatch, work):
    """A function that returns the files of a dataset, which are the official ones for this test."""

    def made(name):
        kind = getattr(torchvision.datasets, named.DATASETS[name].loader)
        found = {"mnist": mnist_files, "cifar100": cifar100_files, "svhn": lambda: svhn_files(work)}[name]()
        md5s = {file: hashlib.md5(content).hexdigest() for file, content in found.items()}
        if name == "mnist":
            monkeypatch.setattr(kind, "resources", list(md5s.items()))
        elif name == "svhn":
            split = {part: ["", f"{part}_32x32.mat", md5s[f"{part}_32x32.mat"]] for part in ("train", "test")}
            monkeypatch.setattr(kind, "split_list", split)
        else:
            monkeypatch.setattr(kind, "train_list", [["train", md5s["train"]]])
            monkeypatch.setattr(kind, "test_list", [["test", md5s["test"]]])
            monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5s["meta"]})
        return found

    return made


def put(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


SHAPES = {"mnist": (28, 28, 1), "cifar100": (32, 32, 3), "svhn": (32, 32, 3)}


@pytest.mark.parametrize("name", SHAPES)
def test_is_read_with_its_classes(name, files, work):
    found = load(name, put(work / "data", files(name)))
    assert (found.name, found.image_shape, found.source) == (name, SHAPES[name], str(work / "data"))
    assert len(found.train) + len(found.validation) == len(found.test) == IMAGES
    assert found.test.labels.tolist() == [number % 10 for number in range(IMAGES)]
    assert found.classes == tuple(f"kind{number}" if name == "cifar100" else str(number) for number in range(10))
    if name == "cifar100":
        assert found.test.pixels[0, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", SHAPES)
def test_is_found_where_torchvision_puts_it(name, files, work):
    put(work / "data" / named.DATASETS[name].folder, files(name))
    assert len(load(name, work / "data").test) == IMAGES


def test_is_found_by_the_variable_and_in_the_cache(files, work, monkeypatch):
    content = files("mnist")
    put(named.cache_directory() / "mnist", content)
    assert load("mnist").source == str(named.cache_directory() / "mnist")
    monkeypatch.setenv("CIFAR_MLFLOW_DATA", str(put(work / "data" / "mnist", content).parent))
    assert load("mnist").source == str(work / "data" / "mnist")


def test_what_was_packed_again_is_told_by_its_content(files, work, monkeypatch):
    content = {name: gzip.decompress(packed) for name, packed in files("mnist").items()}
    md5s = {name: (hashlib.md5(each).hexdigest(), "") for name, each in content.items()}
    place = put(work / "data", {name: gzip.compress(each, 1) for name, each in content.items()})
    with pytest.raises(DataError, match="is not the official file"):
        load("mnist", place)
    monkeypatch.setattr(named, "CONTENT", md5s)
    assert len(load("mnist", place).test) == IMAGES


def test_an_archive_of_cifar100_is_taken_as_it_is(files, work, monkeypatch):
    folder = put(work / "unpacked" / "cifar-100-python", files("cifar100"))
    (work / "data").mkdir()
    archive = work / "data" / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, "cifar-100-python")
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(load("cifar100", work / "data").test) == IMAGES
    assert [path.name for path in (work / "data").iterdir()] == ["cifar-100-python.tar.gz"]


@pytest.mark.parametrize("name", SHAPES)
def test_another_file_than_the_official_one_is_refused_by_name(name, files, work):
    place = put(work / "data", files(name))
    victim = sorted(place.iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=f"{victim.name} is not the official file of"):
        load(name, place)


def test_what_is_not_there_says_what_to_put_where(work):
    with pytest.raises(DataError) as raised:
        load("mnist", work)
    assert "does not hold the files of MNIST; put there train-images-idx3-ubyte.gz, " in str(raised.value)


@pytest.mark.parametrize("name", named.DATASETS)
def test_without_a_network_says_what_to_put_where(name, work):
    with pytest.raises(DataError) as raised:
        load(name)
    text = str(raised.value)
    assert "is not on this machine and could not be downloaded" in text
    assert all(file in text for file in named.DATASETS[name].files())
    assert "--data-dir or $CIFAR_MLFLOW_DATA" in text


def test_a_download_is_in_the_cache_whole(files, work, monkeypatch):
    content = files("mnist")

    class Answer:
        def __init__(self, request):
            self.url = request.full_url
            self._left = content[self.url.rpartition("/")[2]]
            self.length = len(self._left)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def read(self, size):
            given, self._left = self._left[:size], self._left[size:]
            return given

    monkeypatch.setattr("urllib.request.urlopen", Answer)
    assert len(load("mnist").test) == IMAGES
    monkeypatch.undo()
    names = {path.name for path in named.cache_directory().iterdir()}
    assert "mnist" in names
    assert not [name for name in names if "partial" in name]


def test_data_dir_acts_with_each_of_them():
    for name in named.DATASETS:
        assert not [text for text in without_effect(resolve({"dataset": name, "data_dir": "/x"})) if "data-dir" in text]


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_has_its_real_files(monkeypatch):
    monkeypatch.setattr(named, "SYSTEM", DEBIAN.parent)
    found = load("fashion_mnist")
    assert (len(found.train), len(found.validation), len(found.test)) == (54_000, 6_000, 10_000)
    assert found.image_shape == (28, 28, 1)
    assert found.classes[0] == "T-shirt/top"
    assert np.bincount(found.test.labels).tolist() == [1000] * 10
    # The first test image is an ankle boot; the mean level is known from the literature (0.286 of 1).
    assert found.classes[found.test.labels[0]] == "Ankle boot"
    assert found.train.pixels.double().mean() / 255 == pytest.approx(0.286, abs=0.001)
