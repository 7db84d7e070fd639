"""The training images to look at are changed as they will be, and nothing of the training changes by it."""

import pytest
import torch

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.data.preview import preview


@pytest.mark.parametrize("values", [{}, {"augmentation": "trivial_augment"}, {"mix": "mixup"}, {"mix": "cutmix"}])
def test_they_are_as_the_network_gets_them_and_the_same_each_time(tiny, values):
    config = resolve({"dataset": str(tiny), **values})
    data = datasets.load(config)
    before = torch.get_rng_state()
    images = preview(config, data)
    assert images.dtype == torch.uint8
    assert images.equal(preview(config, data))
    assert torch.get_rng_state().equal(before)
    found = {tuple(image.flatten().tolist()) for image in data.train.pixels}
    unchanged = sum(tuple(image.flatten().tolist()) in found for image in images)
    assert unchanged == len(images) if not values else unchanged < len(images) / 2


def test_a_shift_beyond_the_images_is_refused_here_too(tiny):
    config = resolve({"dataset": str(tiny), "augmentation": "flip_crop", "shift": 8, "padding": "reflect"})
    with pytest.raises(ConfigurationError, match="--shift: 8 is refused"):
        preview(config, datasets.load(config))
