"""Augmentation: drawn for each image, and doing what it is called after."""

import pytest
import torch

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning import training
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.data.augmentation import Augmentation, padded_by

IMAGES, SIZE, SHIFT = 400, 12, 4
ORDER = torch.arange(IMAGES)


def pixels():
    return torch.randint(1, 256, (IMAGES, SIZE, SIZE, 3), dtype=torch.uint8)


def applied(kind, images, seed=0, positions=slice(0, IMAGES), epoch=1, order=ORDER, config_seed=0, **values):
    config = resolve({"augmentation": kind, "seed": config_seed, **values})
    draws = Augmentation(config, epoch, order, torch.Generator().manual_seed(seed))
    return draws.apply(images, positions)


def is_mirrored(changed, images):
    """Of each image whether it is mirrored; any other change is a failure."""
    mirrored = [new.equal(old.flip(1)) for new, old in zip(changed, images, strict=True)]
    same = [new.equal(old) for new, old in zip(changed, images, strict=True)]
    assert all(one or other for one, other in zip(mirrored, same, strict=True))
    return mirrored


def test_none_changes_nothing_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    images = pixels()
    assert applied("none", images) is images
    Augmentation(resolve({"augmentation": "none"}), 1, ORDER, generator)
    assert generator.get_state().equal(before)


def test_about_half_of_the_images_are_mirrored_and_the_rest_are_left():
    images = pixels()
    assert 150 < sum(is_mirrored(applied("flip", images), images)) < 250


def test_alternate_flip_shows_each_side_of_an_image_in_every_other_epoch():
    images = pixels()
    first, second, third = (
        is_mirrored(applied("flip", images, seed=epoch, epoch=epoch, alternate_flip=True), images)
        for epoch in (1, 2, 3)
    )
    assert 150 < sum(first) < 250
    assert [not side for side in first] == second
    assert first == third


@pytest.mark.parametrize("values", [{}, {"alternate_flip": True}])
def test_another_repeat_mirrors_other_images(tiny, monkeypatch, values):
    def flips(seed):
        drawn = []
        monkeypatch.setattr(training, "Augmentation", lambda *words: drawn.append(Augmentation(*words)) or drawn[-1])
        config = resolve({"dataset": str(tiny), "epochs": 1, "augmentation": "flip", "seed": seed, **values})
        list(training.Training(config, datasets.load(config)).epochs())
        return drawn[0]._flips

    assert flips(0).equal(flips(0))
    assert not flips(0).equal(flips(1))


def test_the_first_sides_of_alternate_flip_are_another_repeats_own():
    # In the same order, so that the order alone cannot make the difference.
    images = pixels()
    first, second = (
        is_mirrored(applied("flip", images, alternate_flip=True, config_seed=seed), images) for seed in (0, 1)
    )
    assert first != second


def test_alternate_flip_follows_an_image_through_the_order():
    images, order = pixels(), torch.randperm(IMAGES)
    first = is_mirrored(applied("flip", images, alternate_flip=True), images)
    shuffled = is_mirrored(applied("flip", images[order], order=order, alternate_flip=True), images[order])
    assert shuffled == [first[index] for index in order.tolist()]


@pytest.mark.parametrize("shift", [4, 2, 1])
def test_every_shift_of_up_to_the_given_pixels_happens(shift):
    # One bright dot in the middle tells where the image went.
    images = torch.zeros(IMAGES, SIZE, SIZE, 1, dtype=torch.uint8)
    middle = SIZE // 2
    images[:, middle, middle] = 255
    found = applied("flip_crop", images, shift=shift).nonzero()
    assert len(found) == IMAGES
    rows, columns = set((found[:, 1] - middle).tolist()), found[:, 2].tolist()
    assert rows == set(range(-shift, shift + 1))
    # A mirrored dot stands one pixel to the left.
    assert set(columns) == set(range(middle - 1 - shift, middle + shift + 1))


def test_what_is_shifted_in_is_black_or_the_images_own():
    images = torch.full((IMAGES, SIZE, SIZE, 3), 7, dtype=torch.uint8)
    changed = applied("flip_crop", images)
    assert set(changed.unique().tolist()) == {0, 7}
    assert changed.dtype == torch.uint8
    assert applied("flip_crop", images, padding="reflect").equal(images)


@pytest.mark.parametrize("size", [5, 12])
def test_reflection_is_torchs_own(size):
    images = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8)
    expected = torch.nn.functional.pad(images.permute(0, 3, 1, 2).float(), (SHIFT,) * 4, "reflect")
    assert padded_by(images, SHIFT, reflect=True).equal(expected.permute(0, 2, 3, 1).to(torch.uint8))


def test_the_draws_are_repeatable_and_belong_to_positions():
    images = pixels()
    whole = applied("flip_crop", images)
    assert applied("flip_crop", images).equal(whole)
    assert applied("flip_crop", images[100:150], positions=slice(100, 150)).equal(whole[100:150])
    assert not applied("flip_crop", images, seed=1).equal(whole)


def test_the_images_given_are_not_written_to():
    images = pixels()
    copy = images.clone()
    applied("flip_crop", images)
    assert images.equal(copy)
