"""Folders of images as datasets: layouts, split, size, and what is refused."""

import numpy as np
import pytest
import torch
from reading import load, names_of, told
from support import write_classes, write_parts, write_photo

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import datasets, image_files, image_folder


class TestLayouts:
    def test_parts_that_are_given_are_taken(self, photos):
        write_parts(photos, parts=("train", "val", "test"))
        found = load(photos)
        assert (found.name, found.source, found.classes) == ("photos", str(photos), ("cat", "dog"))
        assert [len(part) for part in (found.train, found.validation, found.test)] == [20, 20, 20]
        assert found.test.labels.tolist() == [0] * 10 + [1] * 10
        assert set(found.validation_indices) == set(range(20, 40))

    @pytest.mark.parametrize("name", ["valid", "VAL"])
    def test_validation_has_other_names_too(self, photos, name):
        write_parts(photos, parts=("train", name, "test"))
        assert len(load(photos).validation) == 20

    def test_validation_is_split_off_where_it_is_not_given(self, photos):
        write_parts(photos, count=50)
        found = load(photos)
        assert len(found.test) == 100
        assert 3 <= len(found.validation) <= 20
        assert len(found.train) + len(found.validation) == 100

    def test_classes_alone_are_split_in_three(self, photos):
        write_classes(photos, 100)
        found = load(photos)
        counts = [len(part) for part in (found.train, found.validation, found.test)]
        assert sum(counts) == 200
        assert 15 <= counts[2] <= 45
        for part in (found.train, found.validation, found.test):
            assert set(part.labels.tolist()) == {0, 1}

    def test_test_images_are_split_off_where_only_they_are_missing(self, photos):
        write_parts(photos, parts=("train", "val"), count=20)
        found = load(photos, test_size=10)
        assert [len(part) for part in (found.train, found.validation, found.test)] == [30, 40, 10]

    def test_nested_images_belong_to_the_class_above(self, photos):
        write_classes(photos, 20)
        write_photo(photos, "cat/2024/may/deep.JPG", 5000, "JPEG")
        assert "deep.JPG" in set.union(*names_of(photos).values())

    def test_hidden_and_other_files_are_left_out_and_told(self, photos):
        write_parts(photos)
        write_photo(photos, ".hidden.png", 1)
        write_photo(photos, "train/.cache/x.png", 2)
        write_photo(photos, "train/cat/.DS_Store", 3)
        write_photo(photos, "train/loose.png", 4)
        (photos / "train" / "cat" / "notes.txt").write_text("x")
        write_photo(photos, "unlabelled/x/y.png", 5)
        found = load(photos)
        assert len(found.train) + len(found.validation) == 20
        assert sorted(found.warnings) == [
            "left out: 1 file not named as images are: train/cat/notes.txt",
            "left out: 1 folder beside the parts: unlabelled",
            "left out: 1 image beside the folders of the classes: train/loose.png",
        ]

    def test_links_are_followed(self, photos, work):
        write_classes(photos, 20, classes=("cat",))
        write_classes(work / "elsewhere", 20, classes=("dog",), first=7000)
        (photos / "dog").symlink_to(work / "elsewhere" / "dog")
        (photos / "cat" / "linked.png").symlink_to(write_photo(work, "single.png", 5000))
        found = load(photos)
        assert len(found.train) + len(found.validation) + len(found.test) == 41

    def test_gray_images_alone_have_one_channel(self, photos):
        write_classes(photos, 10, mode="L")
        gray = load(photos)
        assert gray.image_shape == (16, 16, 1)
        write_photo(photos, "cat/coloured.png", 4711)
        assert load(photos).image_shape == (16, 16, 3)

    def test_images_that_are_enlarged_are_told_unless_all_are(self, photos):
        write_classes(photos, 20)  # of 16 x 16
        write_photo(photos, "cat/tiny.png", 4711, size=(40, 3))
        assert load(photos, image_size=8).warnings == ("enlarged to 8 pixels a side: 1 image: cat/tiny.png",)
        assert load(photos, image_size=64).warnings == ()

    def test_validation_size_0_trains_on_the_validation_images_too(self, photos):
        write_parts(photos, parts=("train", "val", "test"))
        found = load(photos, validation_size=0)
        assert (len(found.train), len(found.validation)) == (40, 0)
        assert "--validation-size 0 trains on the validation images of the folder too" in found.warnings

    def test_sizes_of_parts_that_are_there_are_told_to_have_no_effect(self, photos):
        write_parts(photos, parts=("train", "val", "test"))
        assert any("--test-size 0.3 has no effect" in text for text in load(photos, test_size=0.3).warnings)
        for values in ({}, {"validation_size": 0}):
            assert any("--split-seed has no effect" in text for text in load(photos, split_seed=2, **values).warnings)
        assert not any("--split-seed" in text for text in load(photos, split_seed=2, folds=2).warnings)
        assert "--validation-size: 5 is refused: the folder has 20 validation images" in told(photos, validation_size=5)


class TestSplit:
    def test_stays_as_it_is_when_files_are_added_or_renamed(self, photos):
        write_classes(photos, 60)
        before = names_of(photos)
        write_classes(photos, 60, first=500)
        write_classes(photos, 30, classes=("axolotl",), first=9000)
        after = names_of(photos)
        assert all(before[part] <= after[part] for part in before)
        (photos / "cat" / "00003.png").rename(photos / "cat" / "zzz.png")
        part = next(part for part, names in after.items() if "00003.png" in names)
        assert "zzz.png" in names_of(photos)[part]

    def test_is_drawn_by_the_split_seed(self, photos):
        write_classes(photos, 60)
        assert names_of(photos) == names_of(photos, seed=3)
        assert names_of(photos)["test"] != names_of(photos, split_seed=1)["test"]

    def test_takes_a_share_or_a_number_of_each_class(self, photos):
        write_classes(photos, 60, classes=("cat",))
        write_classes(photos, 20, classes=("dog",), first=7000)
        found = load(photos, test_size=20, validation_size=8)
        assert [np.bincount(part.labels).tolist() for part in (found.train, found.validation, found.test)] == [
            [39, 13],
            [6, 2],
            [15, 5],
        ]
        half = load(photos, test_size="0.5")
        assert 25 <= len(half.test) <= 55

    def test_gives_small_classes_an_image_in_each_part(self, photos):
        write_classes(photos, 60)
        write_classes(photos, 3, classes=("rare",), first=8000)
        found = load(photos)
        assert [part.labels.tolist().count(2) for part in (found.train, found.validation, found.test)] == [1, 1, 1]

    def test_shares_are_those_asked_for(self):
        drawn, labels = np.random.default_rng(0).random(10_000), np.arange(10_000) % 10
        assert 0.14 < image_folder.splitting.choose(drawn, labels, 0.15).mean() < 0.16


class TestSize:
    def test_is_the_one_that_all_have(self, photos):
        write_classes(photos, 10, size=(24, 16))
        assert load(photos).image_shape == (16, 24, 3)

    def test_is_asked_for_with_those_that_were_found(self, photos):
        write_classes(photos, 10, size=(24, 16))
        write_photo(photos, "cat/large.png", 1234, size=(100, 80))
        text = told(photos)
        assert "--image-size: say how many pixels a side" in text
        assert "24 x 16 (20), 100 x 80 (1)" in text

    def test_large_images_of_one_size_are_not_taken_unasked(self, photos):
        write_classes(photos, 4, size=(65, 65))
        assert "all images have 65 x 65 (8)" in told(photos)
        assert load(photos, image_size=48).image_shape == (48, 48, 3)

    @pytest.mark.parametrize(("form", "name"), [("PNG", "a.png"), ("JPEG", "a.jpg"), ("WEBP", "a.webp")])
    def test_is_made_by_the_code_of_predict(self, photos, form, name):
        write_classes(photos, 10)
        file = write_photo(photos, f"cat/{name}", 4321, form, size=(301, 200))
        found = image_folder.read(resolve({"dataset": f"{photos}/", "image_size": 32}), datasets.no_bar)
        row = found.names.index(f"cat/{name}")
        (part,) = [part for part, rows in found.rows.items() if row in rows]
        ours = found.pixels[part][found.rows[part].tolist().index(row)]
        (predicted,) = image_files.read(file, (32, 32, 3))
        assert np.array_equal(ours, predicted.pixels)

    def test_that_does_not_fit_into_memory_is_refused_with_one_that_would(self, photos, monkeypatch):
        write_classes(photos, 10)

        class Memory:
            available = 20 * 16 * 16 * 3 / 0.9 + 10

        monkeypatch.setattr(image_folder.psutil, "virtual_memory", Memory)
        assert load(photos).image_shape == (16, 16, 3)
        assert "20 images of 64 x 64 x 1 bytes take 0.0 GB" in told(photos, image_size=64)
        text = told(photos, image_size=17)
        assert "20 images of 17 x 17 x 3" in text
        assert "--image-size 16 or less would fit" in text


class TestTestSet:
    def test_is_fitted_to_the_model(self, photos):
        write_parts(photos, parts=("train", "test"), size=(40, 30))
        found = datasets.load_test_folder(str(photos), ("bird", "cat", "dog"), (8, 8, 1))
        assert found.classes == ("bird", "cat", "dog")
        assert found.image_shape == (8, 8, 1)
        assert found.test.labels.tolist() == [1] * 10 + [2] * 10

    def test_needs_no_parts(self, photos):
        write_classes(photos, 5)
        assert len(datasets.load_test_folder(str(photos), ("cat", "dog"), (8, 8, 3)).test) == 10

    def test_of_other_classes_is_refused(self, photos):
        write_classes(photos, 5)
        with pytest.raises(DataError, match="dog: no class of the model, which has cat, cow"):
            datasets.load_test_folder(str(photos), ("cat", "cow"), (8, 8, 3))


def test_the_digest_tells_pixels_split_and_classes_apart(photos):
    write_classes(photos, 20)
    first = load(photos)
    others = [load(photos, split_seed=1), load(photos, image_size=12), load(photos, test_size=5)]
    (photos / "cat").rename(photos / "puma")
    others.append(load(photos))
    (photos / "puma").rename(photos / "cat")
    write_photo(photos, "cat/00000.png", 555)
    others.append(load(photos))
    assert len({first.digest, *(each.digest for each in others)}) == 6
    write_photo(photos, "cat/00000.png", 0)
    again = load(photos)
    assert again.digest == first.digest
    assert torch.equal(again.train.pixels, first.train.pixels)
