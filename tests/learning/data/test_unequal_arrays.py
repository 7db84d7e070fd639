"""Images and labels of an .npz file that are not as many."""

import pytest
from support import tiny_arrays

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import datasets


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("longer", ["x", "y"])
def test_are_told_with_their_numbers_whichever_are_more(write_npz, part, longer):
    arrays = {name: array for name, array in tiny_arrays().items() if name.endswith(part)}
    shorter = f"{'y' if longer == 'x' else 'x'}_{part}"
    path = write_npz(**{shorter: arrays[shorter][:-1]})
    with pytest.raises(DataError) as told:
        datasets.load(resolve({"dataset": str(path)}))
    images, labels = (len(arrays[f"{kind}_{part}"]) - (f"{kind}_{part}" == shorter) for kind in "xy")
    assert f"x_{part} has {images} images and y_{part} {labels} labels; needed is one label an image" in str(told.value)
