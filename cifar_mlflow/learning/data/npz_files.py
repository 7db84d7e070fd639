"""The user's own images: .npz files, read whole and checked, with all that is wrong told together."""

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cifar_mlflow.errors import DataError

TRAIN, TEST = ("x_train", "y_train"), ("x_test", "y_test")
_Classes = tuple[str, ...]


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, _Classes]:
    """x_train, y_train, x_test, y_test and the names of the classes: images uint8 (n, height, width, channels), labels
    int64 (n).

    Raises DataError if the file is missing, damaged, or cannot be used.
    """
    arrays = _checked(path, _arrays(path, (*TRAIN, *TEST)))
    x_train, y_train, x_test, y_test = (arrays[name] for name in (*TRAIN, *TEST))
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64), _names(arrays, y_train)


def read_test(path: Path, classes: _Classes) -> tuple[np.ndarray, np.ndarray, _Classes]:
    """x_test, y_test and the names of the classes, as `read` of a file that need have no others.

    Where the file names no classes they are `classes`, if these have no names but their numbers.
    """
    arrays = _arrays(path, TEST)
    if "classes" not in arrays and classes == tuple(map(str, range(len(classes)))):
        arrays["classes"] = np.array(classes)
    x, y = (_checked(path, arrays)[name] for name in TEST)
    return x, y.astype(np.int64), _names(arrays, y)


def _names(arrays: Mapping[str, np.ndarray], labels: np.ndarray) -> _Classes:
    return tuple(map(str, arrays.get("classes", range(int(labels.max()) + 1))))


def _checked(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if faults := [*_shape_faults(arrays)] or [*_content_faults(arrays)]:
        raise DataError(_refusal(path, faults))
    return arrays


def _arrays(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays that are needed, and `classes` if the .npz file has it; not yet checked."""
    if os.path.isdir(path):
        raise DataError(f"{path}: this is a directory; if it is a folder of images, give {path}/, with the slash")
    if os.path.exists(path) and not os.path.isfile(path):  # of a pipe or a device the reading might never end
        raise DataError(f"{path}: this is no file, but a pipe or a device; copy what it holds to a file")
    if os.path.isfile(path) and not zipfile.is_zipfile(path):
        raise DataError(f"{path}: this is no .npz file, or a part of one; write it with numpy.savez")
    arrays: dict[str, np.ndarray] = {}
    faults: list[str] = []
    try:
        with np.load(path, allow_pickle=False) as file:
            there = list(file.files)
            for name in (name for name in (*needed, "classes") if name in there):
                try:
                    arrays[name] = file[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    as_type = "str" if name == "classes" else "numpy.uint8" if name[0] == "x" else "int"
                    what = "holds Python objects, which are never loaded: they could run any code"
                    faults.append(f"{name} {what}; save it as {name}.astype({as_type})")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; --dataset takes a name, an .npz file or a folder") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: this is not a readable .npz file ({error})") from None
    except Exception as error:  # zipfile and zlib raise classes of their own, with no common base
        raise DataError(f"{path}: this .npz file is damaged ({type(error).__name__}: {error})") from None
    if faults:
        raise DataError(_refusal(path, faults))
    if missing := [name for name in needed if name not in there]:
        raise DataError(
            f"{path}: the arrays {', '.join(missing)} are missing (found: {', '.join(there) or 'none'}); "
            f"needed are {', '.join(needed)}"
        )
    return arrays


def _refusal(path: Path, faults: Sequence[str]) -> str:
    return f"{path}: this dataset cannot be used:" + "".join(f"\n  - {fault}" for fault in faults)


def _shape_faults(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Arrays that are not what is needed."""
    for part in (part for part in ("train", "test") if f"x_{part}" in arrays):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] not in (1, 3):
            needed = "uint8 (images, height, width, channels) with 1 or 3 channels"
            yield f"x_{part} is {x.dtype} of shape {x.shape}; needed is {needed}"
        elif min(x.shape[1:3]) < 4:
            yield f"x_{part} has images of {x.shape[1]} x {x.shape[2]} pixels; needed are at least 4 x 4"
        if y.dtype.kind not in "iu" or y.ndim != 1:
            yield f"y_{part} is {y.dtype} of shape {y.shape}; needed are whole numbers of shape (images,)"
        if x.ndim and y.ndim and len(x) != len(y):
            yield f"x_{part} has {len(x)} images and y_{part} {len(y)} labels; needed is one label an image"
        if y.ndim and len(y) < 2:
            yield f"y_{part} has {len(y)} labels; needed are at least 2"


def _content_faults(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Arrays, each as needed, that do not fit each other."""
    test_alone = "x_train" not in arrays
    known = "test" if test_alone else "train"
    train, test, labels = arrays[f"x_{known}"].shape[1:], arrays["x_test"].shape[1:], arrays[f"y_{known}"]
    if train != test:
        shapes = f"the training images are {train} and the test images {test}"
        yield f"{shapes}; needed is one shape (height, width, channels)"
    names = arrays.get("classes")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names)):
        yield f"classes is {names.dtype} of shape {names.shape}; needed are distinct names of shape (classes,)"
        return
    count = len(names) if names is not None else int(labels.max()) + 1
    spans = {
        name: (int(arrays[name].min()), int(arrays[name].max())) for name in ("y_train", "y_test") if name in arrays
    }
    outside = {name: span for name, span in spans.items() if span[0] < 0 or span[1] >= count}
    for name, (lowest, highest) in outside.items():
        yield f"{name} has labels from {lowest} to {highest}; needed are 0 to {count - 1}"
    if outside or train != test or test_alone:
        return
    if count < 2:
        yield "there is one class; needed are at least 2"
    if absent := set(range(min(count, 100_000))) - set(labels.tolist()):
        yield f"no training image has label {min(absent)}; needed is every label from 0 to {count - 1}"
