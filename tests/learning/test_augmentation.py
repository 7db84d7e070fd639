"""Augmentation: drawn for each image, and doing what it is called after."""

import torch

from cifar_mlflow.learning.augmentation import SHIFT, Augmentation

IMAGES, SIZE = 400, 12
CPU = torch.device("cpu")


def pixels():
    return torch.randint(1, 256, (IMAGES, SIZE, SIZE, 3), dtype=torch.uint8)


def applied(kind, images, seed=0, positions=slice(0, IMAGES)):
    draws = Augmentation.draw(kind, IMAGES, torch.Generator().manual_seed(seed), CPU)
    return draws.apply(images, positions)


def test_none_changes_nothing_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    images = pixels()
    assert applied("none", images) is images
    Augmentation.draw("none", IMAGES, generator, CPU)
    assert generator.get_state().equal(before)


def test_about_half_of_the_images_are_mirrored_and_the_rest_are_left():
    images = pixels()
    changed = applied("flip", images)
    mirrored = [new.equal(old.flip(1)) for new, old in zip(changed, images, strict=True)]
    same = [new.equal(old) for new, old in zip(changed, images, strict=True)]
    assert all(one or other for one, other in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


def test_every_shift_of_up_to_four_pixels_happens():
    # One bright dot in the middle tells where the image went.
    images = torch.zeros(IMAGES, SIZE, SIZE, 1, dtype=torch.uint8)
    middle = SIZE // 2
    images[:, middle, middle] = 255
    found = applied("flip_crop", images).nonzero()
    assert len(found) == IMAGES
    rows, columns = set((found[:, 1] - middle).tolist()), found[:, 2].tolist()
    assert rows == set(range(-SHIFT, SHIFT + 1))
    # A mirrored dot stands one pixel to the left.
    assert set(columns) == set(range(middle - 1 - SHIFT, middle + SHIFT + 1))


def test_what_is_shifted_in_is_black():
    changed = applied("flip_crop", torch.full((IMAGES, SIZE, SIZE, 3), 7, dtype=torch.uint8))
    assert set(changed.unique().tolist()) == {0, 7}
    assert changed.dtype == torch.uint8


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
