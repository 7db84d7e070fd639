""".npz files and image files with anything in them."""

import io
import zipfile

import numpy as np
from fuzzing import damaged, fuzz, only_our_errors
from hypothesis import strategies as st
from PIL import Image
from support import tiny_arrays

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.learning.data import datasets, image_files


def saved(arrays, compressed):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


ARRAYS = tiny_arrays(train=12, test=6)
NPZ = [saved(ARRAYS, True), saved(ARRAYS, False), saved({**ARRAYS, "classes": np.array(["a", "b", "c"])}, True)]


def npz_of(members):
    """An .npz whose members have hostile headers."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, header, content in members:
            text = header.encode() + b" " * (63 - (len(header) + 10) % 64) + b"\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content)
    return file.getvalue()


HEADERS = st.builds(
    "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format,
    st.sampled_from(["'|u1'", "'<i8'", "'|O'", "'<f8'", "'<U999999'", "[('a', 'u1')]", "'|V8'", "'<M8[D]'", "5"]),
    st.sampled_from(["True", "False", "0", "[]"]),
    st.sampled_from(
        ["(12, 8, 8, 3)", "(12,)", "()", "(-1,)", "(2**60,)", "(4000000000000,)", "(0, 8, 8, 3)", "'x'", "(1.5,)"]
    ),
)
HOSTILE_NPZ = st.lists(
    st.tuples(st.sampled_from(["x_train", "y_train", "x_test", "y_test", "classes"]), HEADERS, st.binary(max_size=64)),
    min_size=4,
    max_size=5,
    unique_by=lambda member: member[0],
).map(npz_of)


@fuzz(content=damaged(NPZ) | HOSTILE_NPZ)
def test_npz_files(work, content):
    (work / "x.npz").write_bytes(content)
    with only_our_errors():
        datasets.load(TrainingConfig(dataset=str(work / "x.npz")))
    assert list(image_files.read(work / "x.npz", (8, 8, 3)))


def painted(form):
    file = io.BytesIO()
    Image.fromarray(ARRAYS["x_train"][0]).save(file, form)
    return file.getvalue()


PICTURES = [painted(form) for form in image_files.FORMATS]


@fuzz(content=damaged(PICTURES), suffix=st.sampled_from(image_files.SUFFIXES))
def test_image_files(work, content, suffix):
    (work / f"x{suffix}").write_bytes(content)
    (entry,) = image_files.read(work / f"x{suffix}", (8, 8, 3))
    assert isinstance(entry, image_files.Skipped) or entry.pixels.shape == (8, 8, 3)
    (work / f"x{suffix}").unlink()
