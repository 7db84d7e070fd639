"""Fetching CIFAR-10: into the cache alone, whole or not at all; and files that print while they are read."""

import hashlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from servers import serving
from test_cifar10 import files, write_folder  # noqa: F401 (a fixture)

from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import cifar10, image_files


@pytest.fixture
def there(work, monkeypatch):
    """A directory that is served, from where CIFAR-10 is published: the directory, its address, what is asked of it."""
    (work / "there").mkdir()
    monkeypatch.delenv(cifar10.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(cifar10, "cache_directory", lambda: work / "new" / "cache")
    with serving(work / "there") as (address, asked):
        monkeypatch.setattr(cifar10, "URL", f"{address}/{cifar10.ARCHIVE}")
        yield work / "there", address, asked


@pytest.fixture
def archive(there, monkeypatch):
    """The archive that is served, which is the official one."""
    path = there[0] / cifar10.ARCHIVE
    path.write_bytes(os.urandom(3 * 2**20))
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


def in_the_cache() -> list[str]:
    return sorted(path.name for path in cifar10.cache_directory().iterdir())


def test_it_is_fetched_once_into_the_cache(there, archive, capfd):
    for _ in range(2):
        found = cifar10.locate()
        assert (found, found.read_bytes()) == (cifar10.cache_directory() / cifar10.ARCHIVE, archive.read_bytes())
    assert there[2] == [f"/{cifar10.ARCHIVE}"]
    assert in_the_cache() == [cifar10.ARCHIVE, f"{cifar10.ARCHIVE}.lock"]
    assert capfd.readouterr() == ("", "")


def test_what_was_fetched_in_part_is_not_taken(there, archive):
    archive.write_bytes(archive.read_bytes()[:-1])
    told = r"could not be downloaded from http\S* \(what it gives as \S* is not the official file, or not all of it\)"
    with pytest.raises(DataError, match=told) as raised:
        cifar10.locate()
    assert "or use --dataset digits, which needs no files" in str(raised.value)
    assert in_the_cache() == [f"{cifar10.ARCHIVE}.lock"]


def test_a_cache_that_cannot_be_made_is_told(there, archive, work):
    (work / "new").write_text("a file in the place of the directory")
    with pytest.raises(DataError, match=r"could not be downloaded from http\S* \(.*(Not a directory|File exists)"):
        cifar10.locate()


def test_a_server_that_is_silent_is_not_waited_for(there, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(DataError, match=r"\(timed out\)"):
            cifar10.locate(timeout=0.2)


def test_a_place_that_was_named_is_never_downloaded_to(there, archive, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"\(--data-dir\) holds neither the folder"):
        cifar10.locate(str(tmp_path))
    monkeypatch.setenv(cifar10.ENVIRONMENT_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=rf"\(\${cifar10.ENVIRONMENT_VARIABLE}\) holds neither"):
        cifar10.locate()
    assert there[2] == []


# ---------------------------------------------------------------------------------------- from an address of one's own


@pytest.fixture
def own(there, monkeypatch):
    """As `there`, which is the user's own and not the place where CIFAR-10 is published."""
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:1/")
    monkeypatch.setenv(cifar10.ENVIRONMENT_VARIABLE, there[1])
    return there


def test_its_files_are_fetched_once_for_all_processes_of_a_machine(files, own):  # noqa: F811
    directory, _, asked = own
    write_folder(directory, files)
    assert cifar10.place_here() is None
    with ThreadPoolExecutor(2) as both:
        found = {future.result() for future in [both.submit(cifar10.locate) for _ in range(2)]}
    assert found == {cifar10.place_here()} == {cifar10.cache_directory() / cifar10.FOLDER}
    assert sorted(asked) == sorted(f"/{cifar10.FOLDER}/{name}" for name in files)
    assert cifar10.read("auto")[3].shape == (20,)
    assert in_the_cache() == [cifar10.FOLDER, f"{cifar10.ARCHIVE}.lock"]


def test_an_archive_will_do(own, archive):
    assert cifar10.locate().read_bytes() == archive.read_bytes()
    assert in_the_cache() == [cifar10.ARCHIVE, f"{cifar10.ARCHIVE}.lock"]


def test_each_file_is_held_against_its_official_digest(files, own):  # noqa: F811
    files["data_batch_4"] += b"x"
    write_folder(own[0], files)
    with pytest.raises(
        DataError, match=rf"downloaded from {own[1]} \(what it gives as data_batch_4 is not the official"
    ):
        cifar10.locate()
    assert in_the_cache() == [f"{cifar10.ARCHIVE}.lock"]


def test_an_address_without_cifar_10_is_told(own):
    with pytest.raises(DataError, match=rf"downloaded from {own[1]} \(File not found\)"):
        cifar10.locate()


# --------------------------------------------------------------------------------------------- what prints of its own


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
