"""Image files become the arrays that a model takes, by rules."""

import numpy as np
import pytest
from PIL import Image

from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning.data import image_files
from cifar_mlflow.learning.data.image_files import DecodedImage

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
SMOOTH = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)


def pixels(path, shape=(8, 8, 3)):
    (picture,) = image_files.read(path, shape)
    assert isinstance(picture, DecodedImage), picture
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == shape
    return picture.pixels


# -------------------------------------------------------------------------------------------------- conversions


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.PNG"])
def test_an_image_of_the_models_size_is_taken_byte_for_byte(save, name):
    assert (pixels(save(name, RGB)) == RGB).all()


@pytest.mark.parametrize(("name", "options"), [("a.webp", {"lossless": True}), ("a.gif", {})])
def test_other_kinds_of_files_are_read(save, name, options):
    two_colours = np.where(RGB[..., :1] > 127, np.uint8([250, 10, 20]), np.uint8([0, 0, 255]))
    assert (pixels(save(name, two_colours, **options)) == two_colours).all()


def test_a_jpeg_is_read(save):
    found = pixels(save("a.jpg", SMOOTH[:8, :8], quality=95))
    assert np.abs(found.astype(int) - SMOOTH[:8, :8]).max() <= 8


def test_the_content_decides_and_not_the_name(save, work):
    save("a.png", RGB).rename(work / "a.jpg")
    assert (pixels(work / "a.jpg") == RGB).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(save, orientation):
    # What a viewer does with the stored rows and columns, by the EXIF standard.
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB, 1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.webp"):
        assert (pixels(save(name, RGB, exif=exif, lossless=True)) == upright[orientation]).all()


def test_gray_is_repeated_over_the_channels(save):
    assert (pixels(save("a.png", GRAY)) == GRAY[..., None].repeat(3, 2)).all()


def test_black_and_white_become_0_and_255(save):
    assert (pixels(save("a.png", Image.fromarray(GRAY > 127)))[..., 1] == np.where(GRAY > 127, 255, 0)).all()


def test_colour_becomes_luma_for_a_model_of_one_channel(save):
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels(save("a.png", RGB), (8, 8, 1))[..., 0] - luma).max() <= 1


def test_a_model_of_one_channel_takes_gray_as_it_is(save):
    assert (pixels(save("a.png", GRAY), (8, 8, 1))[..., 0] == GRAY).all()


def test_what_is_transparent_is_laid_on_white(save):
    alpha = np.full((8, 8, 1), 255, np.uint8)
    alpha[:4] = 0
    alpha[4] = 51
    found = pixels(save("a.png", np.concatenate([RGB, alpha], 2))).astype(float)
    assert (found[:4] == 255).all()
    assert np.abs(found[4] - (0.2 * RGB[4] + 0.8 * 255)).max() <= 1
    assert (found[5:] == RGB[5:]).all()


def test_gray_with_alpha_is_laid_on_white(save):
    alpha = np.where(np.arange(8)[:, None] < 4, 0, 255).repeat(8, 1).astype(np.uint8)
    image = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(alpha)])
    expected = np.where(alpha == 0, 255, GRAY)
    assert (pixels(save("a.png", image))[..., 2] == expected).all()
    assert (pixels(save("a.png", image), (8, 8, 1))[..., 0] == expected).all()


@pytest.mark.parametrize(("mode", "clear"), [("L", 7), ("RGB", (1, 2, 3)), ("1", 0), ("I;16", 30_000)])
def test_one_colour_that_is_declared_transparent_is_white(save, mode, clear):
    image = Image.new(mode, (8, 8), clear)
    assert (pixels(save("a.png", image, transparency=clear)) == 255).all()
    assert (pixels(save("a.png", image)) != 255).any()


def test_a_palette_becomes_its_colours(save):
    image = Image.fromarray((GRAY % 4).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    colours = np.uint8([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]])
    assert (pixels(save("a.png", image)) == colours[GRAY % 4]).all()
    colours[2] = 255
    assert (pixels(save("a.png", image, transparency=2)) == colours[GRAY % 4]).all()


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_cmyk_becomes_rgb(save, name):
    image = Image.new("CMYK", (8, 8), (255, 0, 51, 0))
    assert np.abs(pixels(save(name, image, quality=100)).astype(int) - [0, 255, 204]).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_gray_is_scaled_to_8_bits(save, name):
    levels = np.uint16([0, 128, 129, 257, 30_000, 65_279, 65_407, 65_535] * 8).reshape(8, 8)
    found = pixels(save(name, levels))
    assert (found == np.round(levels / 257)[..., None]).all()
    assert found[0].tolist() == [[level] * 3 for level in (0, 0, 1, 1, 117, 254, 255, 255)]


def test_16_bit_gray_of_the_other_byte_order(work):
    image = Image.new("I;16B", (8, 8), 30_000)
    image.save(work / "a.tif")
    assert (pixels(work / "a.tif") == 117).all()


def test_of_a_cameras_several_pictures_the_first_is_the_photograph(save):
    preview = Image.new("RGB", (2, 2))
    path = save("a.jpg", SMOOTH[:8, :8], format="MPO", save_all=True, append_images=[preview], quality=95)
    assert np.abs(pixels(path).astype(int) - SMOOTH[:8, :8]).max() <= 8


# --------------------------------------------------------------------------------------------------------- size


def test_a_larger_image_is_scaled_and_its_centre_cut_out(save):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = SMOOTH[:16, :16]
    expected = np.asarray(Image.fromarray(wide).crop((16, 0, 32, 16)).resize((8, 8), Image.Resampling.BICUBIC))
    found = pixels(save("a.png", wide)).astype(int)
    # The filter sees what lies beyond the cut.
    assert np.abs(found[:, 1:-1] - expected[:, 1:-1]).max() <= 1
    turned = pixels(save("a.png", wide.swapaxes(0, 1).copy())).swapaxes(0, 1)
    assert np.abs(turned - found).max() <= 1


def test_scaling_down_averages_over_all_pixels(save):
    checkered = (255 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    assert np.abs(pixels(save("a.png", checkered)).astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (9, 8), (8, 9), (7, 8), (33, 1000)])
def test_any_size_fits(save, size):
    assert (pixels(save("a.png", Image.new("RGB", size, (10, 20, 30)))) == [10, 20, 30]).all()


def test_a_model_may_take_oblong_images(save):
    assert (pixels(save("a.png", RGB), (4, 8, 3)).shape) == (4, 8, 3)
    assert (pixels(save("b.png", SMOOTH[:4, :8]), (4, 8, 3)) == SMOOTH[:4, :8]).all()


# --------------------------------------------------------------------------------------------------- .npz files


@pytest.mark.parametrize("save_arrays", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["images", "x_test"])
def test_an_npz_gives_its_images_one_by_one(work, save_arrays, name):
    stack = RNG.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    save_arrays(work / "a.npz", **{name: stack, "other": np.zeros(3)})
    found = list(image_files.read(work / "a.npz", (8, 8, 3)))
    assert [picture.name for picture in found] == [f"{work}/a.npz[{index}]" for index in range(5)]
    assert (np.stack([picture.pixels for picture in found]) == stack).all()
    assert image_files.count(work / "a.npz") == 5


def test_the_images_of_an_npz_are_fitted_like_files(work, save):
    stack = np.stack([SMOOTH, SMOOTH[::-1]])
    np.savez(work / "a.npz", images=stack)
    for picture, original in zip(image_files.read(work / "a.npz", (8, 8, 1)), stack, strict=True):
        assert (picture.pixels == pixels(save("a.png", original), (8, 8, 1))).all()
    np.savez(work / "gray.npz", images=GRAY[None, ..., None])
    (picture,) = image_files.read(work / "gray.npz", (8, 8, 3))
    assert (picture.pixels == GRAY[..., None]).all()


# --------------------------------------------------------------------------------------------------- directories


def test_a_directory_stands_for_the_images_in_it_sorted(work, save):
    (work / "photos" / "b.png").mkdir(parents=True)
    for name in ("photos/c.JPG", "photos/b.png/1.png", "photos/a.gif"):
        save(name, RGB, format="PNG")
    for name in ("photos/notes.txt", "photos/a.npz", "photos/png"):
        (work / name).write_text("no image")
    np.savez(work / "one.npz", images=RGB[None])
    found = image_files.find(["photos", "one.npz", "photos/a.gif"])
    assert list(map(str, found)) == ["photos/a.gif", "photos/b.png/1.png", "photos/c.JPG", "one.npz", "photos/a.gif"]


def test_all_wrong_paths_are_told_together(work, save):
    (work / "empty" / "below").mkdir(parents=True)
    with pytest.raises(ConfigurationError) as error:
        image_files.find([str(save("a.png", RGB)), "b.png", "empty", "", "/dev/null"])
    assert error.value.faults == [
        "'b.png': No such file or directory",
        "'empty': this directory holds no image (.png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff, .gif)",
        "'': No such file or directory",
        "'/dev/null': this is neither a file nor a directory",
    ]
