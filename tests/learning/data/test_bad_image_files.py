"""What is no image, or not one that can be taken, is named with the reason, and nothing else happens."""

import io
import os
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar_mlflow.learning.data import image_files
from cifar_mlflow.learning.data.image_files import DecodedImage, Skipped

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
SMOOTH = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)


def reason(path, shape=(8, 8, 3)):
    (skipped,) = image_files.read(path, shape)
    assert isinstance(skipped, Skipped), skipped
    assert skipped.name == str(path)
    return skipped.reason


def encoded(content, form, **options):
    file = io.BytesIO()
    Image.fromarray(content).save(file, form, **options)
    return file.getvalue()


def png_that_claims(width, height):
    """A PNG file of a few bytes with any size in its header."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


# ---------------------------------------------------------------------------------------------------- image files

PNG, JPEG = encoded(SMOOTH, "PNG"), encoded(SMOOTH, "JPEG")
NO_IMAGE = "it is no PNG, JPEG, WEBP, BMP, TIFF or GIF image, or one whose beginning is damaged"
TOO_LARGE = "it has more than 89,478,485 pixels, which are not unpacked"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"a cat on a mat\n", NO_IMAGE),
        (SVG, NO_IMAGE),
        (PNG[:12], NO_IMAGE),
        (PNG[:20], "it is damaged (Truncated File Read)"),
        (PNG[: len(PNG) // 2], "it is damaged (image file is truncated"),
        (JPEG[:20], NO_IMAGE),
        (JPEG[: len(JPEG) // 2], "it is damaged (Truncated File Read"),
        (JPEG[: 9 * len(JPEG) // 10], "it is damaged (image file is truncated"),
        (encoded(SMOOTH, "BMP")[:2000], "it is damaged ("),
        (encoded(SMOOTH, "TIFF")[:2000], "it is damaged ("),
        (encoded(SMOOTH, "GIF")[:1000], "it is damaged ("),
        (encoded(SMOOTH, "WEBP")[:100], "it is damaged ("),
        (PNG.replace(b"IDAT", b"IDAX"), NO_IMAGE),
        (png_that_claims(0, 8), NO_IMAGE),
        (png_that_claims(10_000, 10_000), TOO_LARGE),
        (png_that_claims(2**31 - 1, 2**31 - 1), TOO_LARGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", NO_IMAGE),
        (encoded(SMOOTH, "PPM"), NO_IMAGE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_whole_image_is_skipped_with_the_reason(work, content, message):
    (work / "x.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(work / "x.png").startswith(message)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(GRAY.astype(np.float32)), "F"),
        (Image.fromarray(GRAY.astype(np.int32)), "I"),
        (Image.new("LAB", (8, 8)), "LAB"),
    ],
)
def test_other_kinds_of_pixels_are_refused_by_name(save, image, kind):
    message = f"its pixels are of the kind {kind}; 8-bit images and 16-bit gray ones are taken"
    assert reason(save("a.tif", image)) == message


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.png", "a.webp"])
def test_several_frames_are_refused(save, name):
    frames = [Image.fromarray(RGB ^ np.uint8(level)) for level in (0, 100, 200)]
    path = save(name, frames[0], save_all=True, append_images=frames[1:])
    assert reason(path) == "it has 3 frames; give each as a file of its own"


def test_what_became_no_file_or_a_pipe_is_skipped(work):
    os.mkfifo(work / "pipe.png")
    (work / "directory.png").mkdir()
    assert reason(work / "pipe.png") == reason(work / "directory.png") == "it is not a file"
    assert reason(work / "gone.png") == "No such file or directory"


def test_a_file_that_may_not_be_read_is_skipped(save, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    path = save("a.png", RGB)
    monkeypatch.setattr(Image, "open", refused)
    assert reason(path) == "Permission denied"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_are_read_or_skipped_in_silence(work, capfd, data):
    kinds = [("PNG", {}), ("JPEG", {}), ("WEBP", {}), ("BMP", {}), ("TIFF", {}), ("GIF", {})]
    form, options = data.draw(st.sampled_from([*kinds, ("TIFF", {"compression": "tiff_lzw"}), ("", {})]))
    content = bytearray(encoded(RGB, form, **options) if form else data.draw(st.binary(max_size=300)))
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) if data.draw(st.booleans()) else st.just(len(content)))
    (work / "x.png").write_bytes(content[:cut])
    (result,) = image_files.read(work / "x.png", (8, 8, 3))
    assert isinstance(result, DecodedImage | Skipped)
    if isinstance(result, DecodedImage):
        assert result.pixels.shape == (8, 8, 3)
    else:
        assert result.reason
    assert capfd.readouterr() == ("", "")


# --------------------------------------------------------------------------------------------------- .npz files


STACK = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": STACK}, "it holds no array `images` or `x_test` (found: y)"),
        ({}, "it holds no array `images` or `x_test` (found: none)"),
        ({"images": np.array([{"a": 1}], dtype=object)}, "images is object of shape (1,); needed is uint8 (images, "),
        ({"images": STACK / 2}, "images is float64 of shape (4, 8, 8, 3); needed is uint8"),
        ({"images": STACK[0]}, "images is uint8 of shape (8, 8, 3); needed is uint8"),
        ({"x_test": STACK.transpose(0, 3, 1, 2).copy()}, "x_test is uint8 of shape (4, 3, 8, 8); needed is uint8"),
        ({"images": STACK[:0]}, "images is uint8 of shape (0, 8, 8, 3); needed is uint8"),
        ({"images": STACK[:, :0]}, "images is uint8 of shape (4, 0, 8, 3); needed is uint8"),
        ({"images": np.asfortranarray(STACK)}, "images is uint8 of shape (4, 8, 8, 3) in Fortran order; needed is"),
        ({"images": np.zeros(1, [("a", "u1")])}, "images is [('a', 'u1')] of shape (1,); needed is uint8"),
    ],
)
def test_an_npz_of_other_things_is_skipped_with_the_reason(work, arrays, message):
    np.savez(work / "a.npz", **arrays)
    assert reason(work / "a.npz").startswith(message)
    assert image_files.count(work / "a.npz") == 1


def test_what_is_no_npz_is_skipped(work):
    for content in (b"", b"text", PNG):
        (work / "a.npz").write_bytes(content)
        assert reason(work / "a.npz") == "it is no .npz file, or a damaged one (File is not a zip file)"


def write_member(path, shape, content):
    """An .npz whose array claims `shape`, whatever it holds."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header.getvalue() + content)


def test_an_npz_that_ends_early_gives_what_it_has(work):
    write_member(work / "a.npz", (4, 8, 8, 3), RGB.tobytes() + b"more")
    first, skipped = image_files.read(work / "a.npz", (8, 8, 3))
    assert (first.pixels == RGB).all()
    assert skipped == Skipped(f"{work}/a.npz", "it ends after 1 of 4 images", 3)


def test_an_npz_that_claims_a_huge_size_costs_no_memory(work):
    write_member(work / "a.npz", (10**12, 8, 8, 3), b"")
    assert next(image_files.read(work / "a.npz", (8, 8, 3))).images == 10**12
    write_member(work / "a.npz", (1, 10_000, 10_000, 3), b"")
    assert reason(work / "a.npz") == "its images have more than 89,478,485 pixels"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_an_npz_is_told_once(work, data):
    file = io.BytesIO()
    np.savez_compressed(file, images=np.stack([RGB, RGB, RGB]))
    content = bytearray(file.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (work / "a.npz").write_bytes(content)
    assert image_files.count(work / "a.npz") >= 1
    found = list(image_files.read(work / "a.npz", (8, 8, 3)))
    assert all(isinstance(entry, DecodedImage) for entry in found[:-1])
    assert found
