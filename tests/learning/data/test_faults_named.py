"""Faults of a dataset by the names and numbers that are in them."""

import numpy as np
import pytest
import torch

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import datasets, image_files
from cifar_mlflow.learning.data.augmentation import Augmentation


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"y_train": np.arange(120) % 2 * 2}, "no training image has label 1; needed is every label from 0 to 2"),
        ({"y_train": np.zeros(120, int), "y_test": np.zeros(30, int)}, "there is one class; needed are at least 2"),
        ({"y_test": np.arange(30) % 5}, "y_test has labels from 0 to 4; needed are 0 to 2"),
        ({"y_test": np.arange(30) % 3 - 1}, "y_test has labels from -1 to 1; needed are 0 to 2"),
        (
            {"x_test": np.zeros((30, 6, 6, 3), np.uint8)},
            "the training images are (8, 8, 3) and the test images (6, 6, 3); needed is one shape",
        ),
        (
            {"x_test": np.zeros((30, 9, 9, 3), np.uint8)},
            "the training images are (8, 8, 3) and the test images (9, 9, 3); needed is one shape",
        ),
        (
            {"classes": np.array([["a", "b", "c"]])},
            "classes is <U1 of shape (1, 3); needed are distinct names of shape",
        ),
        ({"classes": np.array(["a", "b", "a"])}, "classes is <U1 of shape (3,); needed are distinct names of shape"),
    ],
)
def test_arrays_that_do_not_fit_each_other(write_npz, changes, told):
    path = write_npz(**changes)
    with pytest.raises(DataError) as raised:
        datasets.load(TrainingConfig(dataset=str(path)))
    assert told in str(raised.value)


def test_the_array_that_would_be_read_is_the_one_that_is_named(work):
    np.savez(work / "a.npz", images=np.zeros((2, 8, 8), np.uint8), x_test=np.zeros((2, 8, 8, 3), np.uint8))
    (skipped,) = image_files.read(work / "a.npz", (8, 8, 3))
    assert "images is uint8 of shape (2, 8, 8);" in str(skipped)


def test_without_augmentation_nothing_is_flipped_in_turns_either():
    images = torch.randint(0, 256, (50, 8, 8, 3), dtype=torch.uint8)
    config = resolve({"augmentation": "none", "alternate_flip": True})
    for epoch in (1, 2):
        draws = Augmentation(config, epoch, torch.arange(50), torch.Generator().manual_seed(0))
        assert draws.apply(images, slice(0, 50)) is images
