"""Fetching CIFAR-10: into the cache alone, whole or not at all; and files that print while they are read."""

import os
import socket

import pytest
import torchvision.datasets.utils
from PIL import Image

from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import cifar10, image_files

CONTENT = b"the archive"


@pytest.fixture
def served(monkeypatch, tmp_path):
    """What torchvision is asked to fetch; it writes the archive, or raises `served.error`."""

    class Served(list):
        error = None

    asked = Served()

    def download(url, root, filename, md5):
        asked.append((url, filename, md5, socket.getdefaulttimeout()))
        with open(os.path.join(root, filename), "wb") as file:
            file.write(CONTENT[:3])
            if asked.error:
                raise asked.error
            file.write(CONTENT[3:])

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    monkeypatch.setattr(cifar10, "cache_directory", lambda: tmp_path / "new" / "cache")
    monkeypatch.delenv(cifar10.ENVIRONMENT_VARIABLE, raising=False)
    return asked


def test_it_is_fetched_once_into_the_cache(served, tmp_path):
    before = socket.getdefaulttimeout()
    for _ in range(2):
        found = cifar10.locate(timeout=7.0)
        assert (found, found.read_bytes()) == (tmp_path / "new" / "cache" / cifar10.ARCHIVE, CONTENT)
    ((url, filename, md5, timeout),) = served
    assert url.startswith("https://")
    assert (filename, len(md5), timeout) == (f"{cifar10.ARCHIVE}.partial", 32, 7.0)
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("no route"), "no route"), (RuntimeError("File not found or corrupted."), "corrupted"), (None, None)],
)
def test_what_was_fetched_in_part_is_not_taken(served, tmp_path, error, reason):
    before, served.error = socket.getdefaulttimeout(), error
    if error is None:
        (tmp_path / "new").write_text("a file in the place of the directory")
        reason = "Not a directory|File exists"
    with pytest.raises(DataError, match=rf"could not be downloaded from https\S* \(.*({reason})") as raised:
        cifar10.locate()
    assert "or use --dataset digits, which needs no files" in str(raised.value)
    assert not (tmp_path / "new" / "cache" / cifar10.ARCHIVE).exists()
    assert socket.getdefaulttimeout() == before


def test_the_reason_that_the_network_gives_is_told(served):
    served.error = OSError("a wrapper")
    served.error.reason = "the name is not known"
    with pytest.raises(DataError, match=r"\(the name is not known\)"):
        cifar10.locate()


def test_a_place_that_was_named_is_never_downloaded_to(served, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"\(--data-dir\) holds neither the folder"):
        cifar10.locate(str(tmp_path))
    monkeypatch.setenv(cifar10.ENVIRONMENT_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=rf"\(\${cifar10.ENVIRONMENT_VARIABLE}\) holds neither"):
        cifar10.locate()
    assert served == []


@pytest.mark.parametrize("damaged", [False, True])
def test_whatever_is_printed_of_a_tiff_standard_error_is_as_it_was(work, capfd, damaged):
    Image.linear_gradient("L").save(work / "a.tiff", compression="tiff_lzw")
    if damaged:
        content = (work / "a.tiff").read_bytes()
        (work / "a.tiff").write_bytes(content[:-40] + b"\xff" * 40)
    opened = set(os.listdir("/proc/self/fd"))
    list(image_files.read(work / "a.tiff", (8, 8, 3)))
    assert capfd.readouterr() == ("", "")
    os.write(2, b"still here")
    assert capfd.readouterr() == ("", "still here")
    assert set(os.listdir("/proc/self/fd")) == opened
