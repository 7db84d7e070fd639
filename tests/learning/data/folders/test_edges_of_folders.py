"""Numbers at which a folder begins to be right, or a list to be cut; a cache that holds something else than images."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from reading import told
from support import write_classes, write_photo

from cifar_mlflow.learning.data import decoded_files, image_files, splitting
from cifar_mlflow.learning.data.folder_tree import some


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self._path),)


def test_a_table_of_the_cache_that_holds_a_pickle_is_not_unpickled(work):
    np.savez(work / decoded_files.TABLE, digest=np.array([Payload(work / "was-run")], dtype=object))
    (work / decoded_files.PIXELS).touch()
    with pytest.raises(ValueError, match="allow_pickle"):
        decoded_files.DecodedFiles(work)
    assert not (work / "was-run").exists()


@pytest.mark.parametrize(
    ("names", "told_as"), [(10, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"), (11, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more")]
)
def test_ten_names_are_told_and_then_their_number(names, told_as):
    assert some(map(str, range(names))) == told_as


@pytest.mark.parametrize("images", [1, 5])
def test_an_archive_counts_as_many_images_as_it_holds(work, images):
    np.savez(work / "images.npz", images=np.zeros((images, 6, 7, 3), np.uint8))
    assert image_files.count(work / "images.npz") == images


def test_a_part_needs_two_images(photos):
    write_classes(photos / "train", 8)
    write_photo(photos, "test/cat/1.png", 9000)
    assert "it has 1 test image; needed are at least 2" in told(photos)
    shutil.copy(photos / "test" / "cat" / "1.png", photos / "test" / "cat" / "again.png")
    os.truncate(photos / "train" / "cat" / os.listdir(photos / "train" / "cat")[0], 0)
    assert "needed are at least 2" not in told(photos)


@pytest.mark.parametrize(
    ("size", "each"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (7, (3, 2, 2)), (99, (6, 6, 6))]
)
def test_a_number_of_images_is_dealt_to_the_classes_in_proportion(size, each):
    labels = np.arange(18) % 3
    taken = splitting.choose(np.random.default_rng(0).random(18), labels, size)
    assert tuple(np.bincount(labels[taken], minlength=3)) == each


def test_of_each_class_those_with_the_lowest_numbers_are_taken():
    drawn, labels = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.4]), np.array([0, 0, 0, 1, 1, 1])
    assert splitting.choose(drawn, labels, 2).tolist() == [False, True, False, True, False, False]
    assert splitting.choose(drawn, labels, 4).tolist() == [False, True, True, True, False, True]
