"""The random changes that torchvision draws for a whole batch, drawn for each image: the same but for rounding."""

import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from cifar_mlflow.config.rules import resolve, without_effect
from cifar_mlflow.learning.data import rectangles, trivial_augment
from cifar_mlflow.learning.data.augmentation import Augmentation
from cifar_mlflow.learning.data.mixing import mixing
from cifar_mlflow.learning.data.trivial_augment import OPERATIONS, Choices

SIZE = (12, 10)
OURS = ("random_resized_crop", "random_erasing", "trivial_augment")


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, channels=3):
    """Smooth ones, as photos are: in noise, rounding and the edges of pixels would be all."""
    noise = torch.rand(count, channels, 4, 4, generator=random(1))
    smooth = torch.nn.functional.interpolate(noise, SIZE, mode="bicubic").clamp(0, 1)
    return (255 * smooth).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def each(pixels, function):
    """`function` of each image, which has its channels first, and its position."""
    changed = [function(image.permute(2, 0, 1), place).permute(1, 2, 0) for place, image in enumerate(pixels)]
    return torch.stack(changed)


class TestCrops:
    def test_are_torchvisions_but_for_rounding(self):
        pixels, drawn = images(200), rectangles.draw_crops(200, SIZE, random())
        theirs = each(pixels, lambda image, place: functional.resized_crop(image, *drawn[place].tolist(), SIZE))
        assert (rectangles.cropped(pixels, drawn).int() - theirs.int()).abs().max() <= 1

    def test_of_the_whole_image_are_the_image(self):
        pixels = images(3)
        assert rectangles.cropped(pixels, torch.tensor([[0, 0, *SIZE]] * 3)).equal(pixels)

    def test_are_drawn_as_torchvisions_are(self):
        drawn = rectangles.draw_crops(4000, (32, 32), random())
        theirs = v2.RandomResizedCrop(32)
        torch.manual_seed(0)
        params = [theirs.make_params([torch.zeros(3, 32, 32)]) for _ in range(4000)]
        reference = torch.tensor([[params[place][name] for name in ("top", "left", "height", "width")] for place in
                                  range(4000)])  # fmt: skip
        torch.testing.assert_close(drawn.double().mean(0), reference.double().mean(0), rtol=0.05, atol=0.3)
        torch.testing.assert_close(drawn.double().std(0), reference.double().std(0), rtol=0.05, atol=0.3)

    def test_lie_within_the_image_and_are_the_whole_of_one_that_has_no_room(self):
        drawn = rectangles.draw_crops(1000, SIZE, random())
        assert (drawn[:, :2] >= 0).all()
        assert (drawn[:, 2:] >= 1).all()
        assert (drawn[:, :2] + drawn[:, 2:] <= torch.tensor(SIZE)).all()
        assert set(map(tuple, rectangles.draw_crops(50, (1, 40), random()).tolist())) >= {(0, 0, 1, 40)}


class TestErasing:
    def test_blackens_the_rectangle_alone(self):
        pixels = images(100) // 2 + 1
        drawn = rectangles.draw_erased(100, SIZE, random())
        theirs = each(
            pixels, lambda image, place: functional.erase(image, *drawn[place].tolist(), v=torch.zeros(3, 1, 1))
        )
        assert rectangles.erased(pixels, drawn).equal(theirs)

    def test_spares_half_of_the_images_and_never_takes_a_whole_side(self):
        drawn = rectangles.draw_erased(4000, (32, 32), random())
        spared = (drawn[:, 2:] == 0).all(1)
        assert 0.45 < spared.double().mean() < 0.55
        assert (drawn[:, 2:] < 32).all()
        shares = (drawn[~spared, 2] * drawn[~spared, 3]).double() / 32**2
        assert shares.min() > 0.015
        assert shares.max() < 0.35
        assert 0.14 < shares.mean() < 0.19


class TestTrivialAugment:
    @pytest.mark.parametrize("name", OPERATIONS)
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("strength", [0, 7, 30])
    def test_has_torchvisions_operations(self, name, channels, strength):
        reference = {"Identity": "identity", "AutoContrast": "autocontrast"}
        reference |= {word: "".join(f"_{x.lower()}" if x.isupper() else x for x in word).strip("_") for word in
                      v2.TrivialAugmentWide._AUGMENTATION_SPACE if word not in reference}  # fmt: skip
        (theirs,) = [word for word, ours in reference.items() if ours == name]
        transform, pixels = v2.TrivialAugmentWide(), images(4, channels)
        magnitudes, signed = transform._AUGMENTATION_SPACE[theirs]
        steps = magnitudes(31, *SIZE)
        for sign in (1.0, -1.0) if signed else (1.0,):
            magnitude = 0.0 if steps is None else float(steps[strength]) * sign
            expected = each(
                pixels,
                lambda image, _: transform._apply_image_or_video_transform(
                    image, theirs, magnitude, transform.interpolation, transform._fill  # noqa: B023
                ),
            )  # fmt: skip
            chosen = Choices(
                torch.full((4,), OPERATIONS.index(name)), torch.full((4,), strength / 30), torch.full((4,), sign)
            )
            off = (trivial_augment.apply(pixels, chosen).int() - expected.int()).abs()
            if name in trivial_augment.GEOMETRIC:  # a pixel at the middle between two may be taken from either
                assert (off > 0).double().mean() < 0.03
            else:
                assert off.max() <= 2

    def test_draws_every_operation_and_strength_for_each_image(self):
        drawn = trivial_augment.draw(20_000, random(), torch.device("cpu"))
        counts = drawn.operations.bincount()
        assert len(counts) == len(OPERATIONS)
        assert (counts - 20_000 / 14).abs().max() < 5 * math.sqrt(20_000 / 14)
        assert len(drawn.strengths.unique()) == 31
        assert set(drawn.signs.unique().tolist()) == {-1.0, 1.0}

    def test_mixes_operations_within_a_batch(self):
        pixels = images(300)
        drawn = trivial_augment.draw(300, random(), torch.device("cpu"))
        whole = trivial_augment.apply(pixels, drawn)
        for place in range(0, 300, 7):
            alone = trivial_augment.apply(pixels[place : place + 1], drawn.at(slice(place, place + 1)))
            assert alone[0].equal(whole[place])


class TestAsAugmentations:
    @pytest.mark.parametrize("name", OURS)
    def test_every_image_has_draws_of_its_own_and_batches_do_not_matter(self, name):
        config, pixels = resolve({"augmentation": name, "shift": 2}), images(1).expand(64, -1, -1, -1)
        order = torch.arange(64)
        drawn = Augmentation(config, 1, order, random(), SIZE)
        whole = drawn.apply(pixels, slice(0, 64))
        assert whole.dtype == torch.uint8
        assert whole.shape == pixels.shape
        assert whole.is_contiguous()
        assert len(whole.flatten(1).unique(dim=0)) > 30
        parts = [drawn.apply(pixels[start : start + 16], slice(start, start + 16)) for start in range(0, 64, 16)]
        assert torch.cat(parts).equal(whole)
        assert Augmentation(config, 1, order, random(), SIZE).apply(pixels, slice(0, 64)).equal(whole)
        assert not Augmentation(config, 1, order, random(1), SIZE).apply(pixels, slice(0, 64)).equal(whole)

    def test_the_shift_acts_where_it_is_done(self):
        for name in ("random_erasing", "trivial_augment"):
            assert without_effect(resolve({"augmentation": name, "shift": 2, "padding": "reflect"})) == []
        (told,) = without_effect(resolve({"augmentation": "random_resized_crop", "shift": 2}))
        assert "(it acts with flip_crop, random_erasing, trivial_augment)" in told


class TestMixing:
    @pytest.mark.parametrize("kind", ["mixup", "cutmix"])
    def test_is_torchvisions_and_targets_add_up_to_one(self, kind):
        pixels, labels = images(16), torch.arange(16) % 3
        mix = mixing(resolve({"mix": kind}), 3)
        torch.manual_seed(3)
        mixed, targets = mix(pixels, labels)
        torch.manual_seed(3)
        theirs = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind](num_classes=3)
        first = pixels.permute(0, 3, 1, 2)
        images_there, targets_there = theirs(first.float() if kind == "mixup" else first, labels)
        assert mixed.permute(0, 3, 1, 2).equal(images_there)
        assert targets.equal(targets_there)
        torch.testing.assert_close(targets.sum(1), torch.ones(16))
        assert ((targets > 0) & (targets < 1)).any()

    def test_is_none_by_default(self):
        assert mixing(resolve({}), 3) is None
