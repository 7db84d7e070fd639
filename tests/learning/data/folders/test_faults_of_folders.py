"""What is wrong in a folder of images: all of it told at once, nothing begun."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from reading import load, told
from support import encoded, photo, write_classes, write_parts, write_photo

from cifar_mlflow.learning.data import folder_tree


class TestFaults:
    def test_of_files_are_all_named(self, photos):
        write_classes(photos, 20)
        (photos / "cat" / "empty.png").touch()
        (photos / "dog" / "text.jpg").write_text("hello")
        whole = write_photo(photos, "dog/cut.png", 77, size=(64, 64)).read_bytes()
        (photos / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
        text = told(photos, image_size=16)
        assert "cat/empty.png: it is empty" in text
        assert "dog/text.jpg: it is no PNG" in text
        assert "dog/cut.png: it is damaged" in text

    def test_of_files_can_be_passed_over(self, photos):
        write_classes(photos, 20)
        (photos / "cat" / "empty.png").touch()
        found = load(photos, skip_unreadable=True)
        assert [(each.name, each.reason) for each in found.skipped] == [("cat/empty.png", "it is empty")]
        assert "left out: 1 file that cannot be read: cat/empty.png" in found.warnings
        (photos / "cat" / "empty.png").unlink()
        assert load(photos).digest == found.digest

    def test_one_image_in_two_parts_or_classes(self, photos):
        write_parts(photos)
        shutil.copy(photos / "train/cat/100000.png", photos / "test/cat/again.png")
        (photos / "train/dog/other.bmp").write_bytes(encoded(photo(100_001), "BMP"))  # the same pixels in other bytes
        text = told(photos)
        assert "one image in two parts: test/cat/again.png, train/cat/100000.png" in text
        assert "one image in two classes: train/cat/100001.png, train/dog/other.bmp" in text

    def test_one_image_twice_in_a_class_is_none(self, photos):
        write_classes(photos, 20)
        shutil.copy(photos / "cat/00000.png", photos / "cat/again.png")
        assert not load(photos).warnings

    def test_almost_the_same_image_in_two_classes_is_a_warning(self, photos):
        write_classes(photos, 20)
        nearly = Image.fromarray(np.clip(np.asarray(photo(3)).astype(int) + 2, 0, 255).astype(np.uint8))
        (photos / "dog" / "nearly.png").write_bytes(encoded(nearly))
        (warning,) = load(photos).warnings
        assert warning.startswith("1 pair of almost the same image in two parts or classes: ")
        assert {"cat/00003.png", "dog/nearly.png"} == set(warning.partition("classes: ")[2].split(" and "))

    def test_a_class_that_cannot_be_scored_is_a_warning(self, photos):
        write_parts(photos)
        shutil.rmtree(photos / "test" / "dog")
        assert load(photos).warnings == ("none of the 10 test images is of the class dog",)

    @pytest.mark.parametrize(
        ("make", "fault"),
        [
            (lambda root: root.rmdir(), "it cannot be read: No such file or directory"),
            (lambda root: (root.rmdir(), root.write_text("x")), "this is a file; needed is a folder"),
            (lambda root: None, "it has no folder with images of a class"),
            (lambda root: write_photo(root, "a.png", 1), "it has no folder with images of a class"),
            (lambda root: write_classes(root, 20, classes=("cat",)), "there is one class, 'cat'"),
            (lambda root: (write_classes(root, 9), (root / "bird").mkdir()), "'bird': there is no image in it"),
            (
                lambda root: (write_parts(root), write_photo(root, "test/cats/a.png", 9)),
                "'test/cats': no class of the training images has this name (did you mean cat?)",
            ),
            (
                lambda root: (write_classes(root, 9), write_photo(root, "CAT/a.png", 9)),
                "'CAT', 'cat': the names of these classes differ by case alone",
            ),
            (
                lambda root: write_parts(root, parts=("training", "testing")),
                "testing, training would be its classes; if they are its parts, call them train, test and val",
            ),
            (
                lambda root: write_parts(root, parts=("train", "val", "valid")),
                "val, valid: each would be the",
            ),
            (
                lambda root: (write_classes(root, 9), (root / "cat" / "gone.png").symlink_to("nowhere")),
                "cat/gone.png: it cannot be read: a link that leads nowhere",
            ),
            (
                lambda root: (write_classes(root, 9), (root / "cat" / "loop").symlink_to(root / "cat")),
                "cat/loop: this link leads back to where it stands",
            ),
            *(  # what is above would be read from there once more, if not the whole disk
                (
                    lambda root, above=above: (write_classes(root, 9), (root / "cat" / "loop").symlink_to(above)),
                    "cat/loop: this link leads back to where it stands",
                )
                for above in ("..", "../..", "/")
            ),
            (
                lambda root: (write_parts(root), (root / "train/cat/loop").symlink_to("..")),
                "train/cat/loop: this link leads back to where it stands",
            ),
            (
                lambda root: (write_classes(root, 9), (root / "cat" / "all").symlink_to("/")),
                "cat/all: this link leads back to where it stands",
            ),
            (
                lambda root: (write_classes(root, 9), (root / "dog" / "cats").symlink_to(root / "cat")),
                "dog/cats: this link leads to cat, which is read already",
            ),
            (
                lambda root: (write_classes(root, 9), os.mkfifo(root / "cat" / "pipe.png")),
                "cat/pipe.png: it is not a file",
            ),
            (
                lambda root: (write_classes(root, 9), write_photo(root, "a\nb/a.png", 9)),
                "'a\\nb': no class can have this name: it contains '\\n'",
            ),
        ],
    )
    def test_of_the_folder(self, photos, make, fault):
        photos.mkdir()
        make(photos)
        assert fault in told(photos)

    def test_of_too_many_classes(self, photos):
        for number in range(folder_tree.MOST_CLASSES + 1):
            (photos / f"{number:05d}").mkdir(parents=True)
        assert "there are 1,001 classes; at most 1,000 are taken" in told(photos)

    def test_are_told_in_one_message(self, photos):
        write_parts(photos, size=(24, 16))
        shutil.copy(photos / "train/cat/100000.png", photos / "test/cat/again.png")
        (photos / "train/dog/text.jpg").write_text("hello")
        (photos / "train/dog/gone.png").symlink_to("nowhere")
        write_photo(photos, "train/Cat/a.png", 5, size=(300, 200))
        write_photo(photos, "test/bird/a.png", 6)
        (photos / "train/fish").mkdir()
        text = told(photos)
        for fault in (
            "one image in two parts", "text.jpg: it is no", "leads nowhere", "differ by case", "'test/bird': no class",
            "'train/fish': there is no image", "--image-size: say how many",
        ):  # fmt: skip
            assert fault in text
        assert text.count("\n  - ") == 7
