"""Image files as the uint8 arrays that a model takes: found, read one at a time, and fitted to its size.

What is done to an image, in this order:

- Its EXIF orientation is applied. Colour profiles are not.
- 16-bit gray becomes 8-bit gray, 65535 becoming 255; of 16-bit colour the high byte is taken.
- What is transparent is laid on white. Palettes and CMYK become RGB.
- A model of 3 channels gets gray three times; one of 1 channel gets the luma of RGB (ITU-R 601).
- An image of exactly the model's size is left as it is, byte for byte. Any other is scaled (bicubic, antialiased) so
  that its shorter side fits, and the centre is cut out. A JPEG file of twice that size, or more, is first unpacked at
  the least of a half, a quarter and an eighth that is not smaller (libjpeg's own scaling), in half the time.

Refused: images of several frames, of 32 bits or floating point numbers, and those of more than `PIXELS` pixels. (Of the
several pictures that cameras put into one JPEG file, the first is the photograph.)
"""

import hashlib
import logging
import os
import stat
import threading
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as pillow

from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import first_line

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
ARRAYS = ("images", "x_test")  # the arrays of an .npz file that are looked for
PIXELS = 89_478_485  # Pillow warns of a decompression bomb above this number; here it is an error
# What Pillow can turn into RGB or gray without a choice of ours; 16-bit gray is our own business.
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_GRAY_16 = {"I;16", "I;16L", "I;16B", "I;16N"}
_GRAY = _GRAY_16 | {"1", "L", "LA", "La"}
_BLOCK = 2**18  # bytes that are read at once; hashlib.file_digest would fill as many with zeros for each file
_STANDARD_ERROR = threading.Lock()  # it is one and the same for all threads


@dataclass(frozen=True)
class DecodedImage:
    """An image that was read: `pixels` is uint8 (height, width, channels). One of an .npz is called FILE.npz[17]."""

    name: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Skipped:
    """A file that is no image, or `images` images of an .npz that could not be read, and why."""

    name: str
    reason: str
    images: int = 1


class _Refused(ValueError):
    """Why an image is not read."""


def find(paths: Sequence[str]) -> list[Path]:
    """The files that `paths` name; a directory stands for the image files in it and below it, sorted.

    Raises ConfigurationError with every path that does not exist, and every directory without an image.
    """
    found: list[Path] = []
    faults: list[str] = []
    for given in paths:
        path = Path(given)
        try:
            mode = os.stat(given).st_mode
        except OSError as error:
            faults.append(f"{given!r}: {error.strerror}")
            continue
        if stat.S_ISDIR(mode):
            inside = _images_in(path, faults)
            if not inside:
                faults.append(f"{given!r}: this directory holds no image ({', '.join(SUFFIXES)})")
            found += inside
        elif stat.S_ISREG(mode):
            found.append(path)
        else:
            faults.append(f"{given!r}: this is neither a file nor a directory")
    if faults:
        raise ConfigurationError(faults, "paths of the images")
    return found


def _images_in(directory: Path, faults: list[str]) -> list[Path]:
    walk = os.walk(directory, onerror=lambda error: faults.append(f"{error.filename!r}: {error.strerror}"))
    return sorted(Path(parent, name) for parent, _, names in walk for name in names if name.lower().endswith(SUFFIXES))


def count(path: Path) -> int:
    """How many images `read` will tell of: 1, or what an .npz holds."""
    if path.suffix.lower() != ".npz":
        return 1
    try:
        with zipfile.ZipFile(path) as archive, _array(archive) as (_, shape):
            return shape[0]
    except Exception:  # `read` will say what is wrong
        return 1


def read(path: Path, shape: tuple[int, int, int]) -> Iterator[DecodedImage | Skipped]:
    """The images of a file, fitted to `shape` (height, width, channels); only one of them is held in memory."""
    if path.suffix.lower() == ".npz":
        yield from _read_npz(path, shape)
        return
    with strict():
        decoded = decode(path, shape)
    yield decoded if isinstance(decoded, Skipped) else DecodedImage(str(path), decoded.pixels)


@dataclass(frozen=True)
class Decoded:
    """An image file: its pixels, fitted, uint8 (height, width, channels), and what it was.

    `digest` (16 bytes) is of the file's bytes, `size` the upright image's (width, height) in pixels.
    """

    pixels: np.ndarray
    digest: bytes
    size: tuple[int, int]
    gray: bool


def decode(path: Path, shape: tuple[int, int, int]) -> Decoded | Skipped:
    """The image in a file, fitted to `shape`. Within `strict`; several threads may call it at once."""
    try:
        with _opened(path) as (image, file):
            size, gray = _upright_size(image), image.mode in _GRAY
            image.draft(None, (max(shape[:2]),) * 2)  # of a JPEG file; others know no such thing
            pixels = fitted(image, shape)
            file.seek(0)
            total = hashlib.blake2b(digest_size=16)
            while content := file.read(_BLOCK):
                total.update(content)
            return Decoded(pixels, total.digest(), size, gray)
    except Exception as error:  # each of Pillow's decoders has exceptions of its own
        return Skipped(str(path), _reason(error, first_line(error)))


def measure(path: Path) -> tuple[int, int] | None:
    """(width, height) of the upright image in a file, by what that says of itself, or None. Within `strict`."""
    try:
        with _opened(path) as (image, _):
            return _upright_size(image)
    except Exception:  # `decode` will say what is wrong
        return None


def _upright_size(image: pillow.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8) else (width, height)


def _reason(error: Exception, damage: str) -> str:
    """Why no image comes of what raised the `error`; `damage` describes one of which nothing else is known."""
    match error:
        case _Refused():
            return str(error)
        case MemoryError():
            return "it does not fit into memory"
        case zipfile.BadZipFile():
            return f"it is no .npz file, or a damaged one ({error})"
        case pillow.DecompressionBombWarning() | pillow.DecompressionBombError():
            return f"it has more than {PIXELS:,} pixels, which are not unpacked"
        case UnidentifiedImageError():
            return f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image, or one whose beginning is damaged"
        case OSError() if error.strerror:
            return error.strerror
    return f"it is damaged ({damage})"


@contextmanager
def strict() -> Iterator[None]:
    """Has what Pillow would log or warn of be either an error or of no interest, in the whole process."""
    with ExitStack() as after, warnings.catch_warnings():
        logger = logging.getLogger("PIL")
        after.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", pillow.DecompressionBombWarning)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pillow.Image, BufferedReader]]:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise _Refused("it is not a file")
    if status.st_size == 0:
        raise _Refused("it is empty")
    # Opened here: Pillow would map a file that it opens itself, and crash if that becomes shorter meanwhile.
    with (
        path.open("rb") as file,
        pillow.open(file, formats=FORMATS) as image,
        _silenced() if image.format == "TIFF" else nullcontext(),
    ):
        yield image, file


def fitted(image: pillow.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """An image of Pillow's as uint8 of `shape` (height, width, channels), by the rules above.

    Raises ValueError for one that they refuse.
    """
    return _fit(_upright_8_bit(image), shape)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps what libtiff prints of damaged files, past Python, from standard error."""
    with _STANDARD_ERROR:
        before = os.dup(2)
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def _upright_8_bit(image: pillow.Image) -> pillow.Image:
    """The image turned upright, opaque, with 8 bits a channel; its mode is one of `_MODES`."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # the format of cameras' files
        raise _Refused(f"it has {frames} frames; give each as a file of its own")
    if image.mode not in _MODES | _GRAY_16:
        raise _Refused(f"its pixels are of the kind {image.mode}; 8-bit images and 16-bit gray ones are taken")
    image = ImageOps.exif_transpose(image)
    if image.mode in _GRAY_16:
        levels = np.asarray(image).astype(np.uint32)
        levels[levels == image.info.get("transparency", -1)] = 65535
        return pillow.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return image


def _fit(image: pillow.Image, shape: tuple[int, int, int]) -> np.ndarray:
    height, width, channels = shape
    image = image.convert("RGB" if channels == 3 else "L")
    return np.asarray(ImageOps.fit(image, (width, height))).reshape(shape)  # bicubic, and the centre


@contextmanager
def _array(archive: zipfile.ZipFile) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """The array of images in an .npz: its bytes, to be read on from the first image, and its shape."""
    there = [name.removesuffix(".npy") for name in archive.namelist()]
    wanted = [name for name in ARRAYS if name in there]
    if not wanted:
        raise _Refused(f"it holds no array `images` or `x_test` (found: {', '.join(there) or 'none'})")
    with archive.open(f"{wanted[0]}.npy") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape or fortran:
            order = " in Fortran order" if fortran else ""
            raise _Refused(
                f"{wanted[0]} is {dtype} of shape {shape}{order}; needed is uint8 (images, height, width, channels) "
                "with 1 or 3 channels"
            )
        if shape[1] * shape[2] > PIXELS:
            raise _Refused(f"its images have more than {PIXELS:,} pixels")
        yield file, shape


def _read_npz(path: Path, shape: tuple[int, int, int]) -> Iterator[DecodedImage | Skipped]:
    """Image by image, so that no file has to fit into memory; what it says of itself is not trusted."""
    told, images = 0, 1
    try:
        with zipfile.ZipFile(path) as archive, _array(archive) as (file, (images, *original)):
            size = int(np.prod(original))
            while told < images:
                content = file.read(size)
                if len(content) < size:
                    raise _Refused(f"it ends after {told:,} of {images:,} images")
                pixels = np.frombuffer(content, np.uint8).reshape(original)
                if pixels.shape != shape:
                    pixels = _fit(pillow.fromarray(pixels if original[2] == 3 else pixels[..., 0]), shape)
                yield DecodedImage(f"{path}[{told}]", pixels)
                told += 1
    except Exception as error:  # zipfile, zlib and numpy raise classes of their own, with no common base
        yield Skipped(str(path), _reason(error, f"{type(error).__name__}: {error}"), images - told)
