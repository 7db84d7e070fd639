"""Small folders of images that tests write."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog")


def image(seed: int, size=(16, 16), mode="RGB") -> Image.Image:
    """A smooth picture of its own for each seed, so that no two are nearly the same."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(picture: Image.Image, form="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def write(root: Path, path: str, seed: int, form="PNG", **options) -> Path:
    """A file with an image of `size` and `mode`."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(image(seed, **options), form))
    return file


def write_classes(root: Path, count=20, classes=CLASSES, part="", first=0, **options) -> Path:
    """DIR/CLASS/*, `count` images of each class; with a `part`, DIR/PART/CLASS/*."""
    for label, name in enumerate(classes):
        for number in range(count):
            seed = first + 1000 * label + number
            write(root, f"{part}/{name}/{seed:05d}.png".lstrip("/"), seed, **options)
    return root


def write_parts(root: Path, count=10, parts=("train", "test"), classes=CLASSES, **options) -> Path:
    for number, part in enumerate(parts):
        write_classes(root, count, classes, part, first=100_000 * (number + 1), **options)
    return root
