"""The cache of decoded images: used again, made anew where anything changed, whole or not there, and nowhere else."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from support import photo, write_classes, write_photo

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning.data import datasets, decoded_files, image_files


@pytest.fixture
def photos(work):
    return write_classes(work / "photos", 8)


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded since it was last emptied."""
    names, plain = [], image_files.decode

    def counted(path, shape):
        names.append(path.name)
        return plain(path, shape)

    monkeypatch.setattr(image_files, "decode", counted)
    return names


def load(root, **values):
    return datasets.load(resolve({"dataset": f"{root}/", **values}))


def cache() -> Path:
    return decoded_files.cache_directory() / "images"


def entries() -> list[Path]:
    return [path for path in cache().iterdir() if path.is_dir()]


def test_a_second_start_decodes_nothing(photos, decoded):
    first = load(photos)
    assert len(decoded) == 16
    again = load(photos)
    assert len(decoded) == 16
    assert again.digest == first.digest
    assert (again.train.pixels == first.train.pixels).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: write_photo(root, "cat/00000.png", 77),
        lambda root: write_photo(root, "cat/new.png", 77),
        lambda root: (root / "cat" / "00000.png").unlink(),
        lambda root: (root / "cat" / "00000.png").rename(root / "cat" / "other.png"),
    ],
)
def test_whatever_changes_is_seen(photos, decoded, change):
    first = load(photos)
    change(photos)
    load(photos, image_size=12)
    decoded.clear()
    assert load(photos).digest != first.digest
    assert decoded
    assert len(entries()) == 2  # what there was of the same size is replaced


def test_a_file_of_the_same_size_and_time_is_not_taken_for_the_other(photos):
    file = photos / "cat" / "00000.png"
    os.utime(file, (1, 1))
    first = load(photos)
    content = bytearray(file.read_bytes())
    file.write_bytes(photo_of_size(len(content)))
    os.utime(file, (1, 1))
    assert load(photos).digest != first.digest


def photo_of_size(size: int) -> bytes:
    """Another image, in a file of `size` bytes."""
    from support import encoded

    content = encoded(photo(4242, size=(16, 16)))
    small = content if len(content) <= size else encoded(photo(4242).quantize(4).convert("RGB"), optimize=True)
    return small + b"\0" * (size - len(small))  # what follows the end of a PNG is not read


@pytest.mark.parametrize("name", [decoded_files.PIXELS, decoded_files.TABLE])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_what_the_disk_has_lost_is_decoded_again(photos, name, damage, decoded):
    first = load(photos)
    (entry,) = entries()
    content = bytearray((entry / name).read_bytes())
    if damage == "gone":
        (entry / name).unlink()
    else:
        content[len(content) // 2] ^= 255
        (entry / name).write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    decoded.clear()
    assert load(photos).digest == first.digest
    assert len(decoded) == 16


def test_what_another_process_has_replaced_is_decoded_again(photos, decoded, monkeypatch):
    plain, replaced = decoded_files.DecodedFiles.pixels, []

    def pixels(self, rows, channels):
        if not replaced:
            replaced.append(self.remove())
        return plain(self, rows, channels)

    first = load(photos)
    monkeypatch.setattr(decoded_files.DecodedFiles, "pixels", pixels)
    assert load(photos).digest == first.digest
    assert len(decoded) == 32


def test_what_is_broken_off_is_not_there(photos, monkeypatch):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoded_files.np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(photos)
    assert not entries()
    load(photos)
    assert len(entries()) == 1


def test_without_a_cache_that_can_be_written_it_goes_on_and_says_so(photos, work):
    cache().parent.mkdir(parents=True, exist_ok=True)
    cache().write_text("no directory")
    (warning,) = load(photos).warnings
    assert "cannot be written" in warning
    assert "each start decodes all images anew" in warning


def test_what_nobody_uses_is_removed(photos):
    load(photos)
    (old,) = entries()
    long_ago = time.time() - (decoded_files.DAYS_KEPT + 1) * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    load(photos, image_size=12)
    assert old not in entries()
    assert len(entries()) == 1


def test_many_threads_silence_no_stream_for_good(photos, capfd):
    for number in range(20):
        write_photo(photos, f"cat/{number}.tif", 900 + number, "TIFF")
    load(photos)
    os.write(2, b"still here")
    assert capfd.readouterr().err.endswith("still here")


@pytest.fixture
def bars():
    """A bar that keeps of each use how many there were to be, its words, and how many were told of."""

    class Bar:
        def __init__(self, total, description, unit):
            self.told.append([total, description, 0])

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __call__(self, count):
            self.told[-1][2] += count

    Bar.told = []
    return Bar


def test_another_process_that_decodes_is_waited_for_with_a_bar(photos, decoded, bars, monkeypatch):
    monkeypatch.setattr(decoded_files, "SECONDS_BETWEEN_LOOKS", 0.05)
    config = resolve({"dataset": f"{photos}/", "image_size": 16})
    datasets.load(config)
    (entry,) = entries()
    partial, taken = entry.rename(entry.with_suffix(".partial")), FileLock(entry.with_suffix(".lock"))
    plain, pixels = bars.__call__, partial / decoded_files.PIXELS
    content = pixels.read_bytes()
    pixels.write_bytes(content[: len(content) // 2])

    def first_half(self, count):
        plain(self, count)
        pixels.write_bytes(content)
        partial.rename(entry)
        taken.release()

    monkeypatch.setattr(bars, "__call__", first_half)
    taken.acquire()
    datasets.load(config, bars)
    assert bars.told == [[16, "decoding elsewhere", 8]]
    assert len(decoded) == 16


def test_a_bar_is_told_of_each_image(photos, bars):
    datasets.load(resolve({"dataset": f"{photos}/", "image_size": 16}), bars)
    assert bars.told == [[16, "decoding", 16]]
    assert np.all([image_files.measure(path) == (16, 16) for path in photos.rglob("*.png")])
