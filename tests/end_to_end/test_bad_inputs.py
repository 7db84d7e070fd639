"""Wrong options, files and data are told in one message, with the exit code of their kind, and leave no run running."""

import io
import zipfile

import numpy as np
import pytest

OPTIONS, DATA = 2, 3

# ------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs 0", "--epochs: '0' is refused: must be greater than or equal to 1"),
        ("--epochs 1.5", "--epochs: '1.5' is refused: must be a valid integer"),
        ("--epochs", "error: Option '--epochs' requires an argument"),
        ("--learning-rate inf", "--learning-rate: 'inf' is refused: must be a finite number"),
        ("--learning-rate -1", "--learning-rate: '-1' is refused: must be greater than 0"),
        ("--learning-rate fast", "--learning-rate: 'fast' is refused: must be a valid number"),
        ("--gamma 0", "--gamma: '0' is refused: must be greater than 0"),
        ("--dropout 1", "--dropout: '1' is refused: must be less than 1"),
        ("--seed -1", "--seed: '-1' is refused: must be greater than or equal to 0"),
        ("--threads 0", "--threads: '0' is refused: must be auto or a whole number from 1 to 1024"),
        ("--threads 100000", "--threads: '100000' is refused: must be auto or a whole number from 1 to 1024"),
        ("--validation-size most", "--validation-size: 'most' is refused: must be auto or a whole number, 0 or more"),
        ("--batch-norm perhaps", "--batch-norm: 'perhaps' is refused: must be a valid boolean"),
        ("--milestones 5,x", "--milestones: '5,x' is refused: must be a valid integer"),
        ("--data-dir=", "--data-dir: '' is refused: must not be empty"),
        (
            "--dataset imagenet",
            "--dataset: 'imagenet' is refused: must be cifar10, digits, cifar100, mnist, fashion_mnist, svhn, a path",
        ),
        ("--activation rellu", "is not one of relu, leaky_relu, prelu, rrelu, elu, gelu, silu (did you mean relu?)"),
        ("--lerning-rate 1", "--lerning-rate: no such option (did you mean --learning-rate?)"),
        ("--batch-size 1", "--batch-size: 1 cannot be combined with --batch-norm true"),
        ("--scheduler multistep --milestones 20,10", "--milestones: 20,10 must rise, each larger than the one before"),
        ("stray", "'stray': every value needs an option before it"),
    ],
)
def test_a_wrong_option(refused, runs, words, message):
    refused(OPTIONS, message, "train", *words.split())
    assert runs() == []


def test_a_gpu_that_is_not_there(refused, runs, tiny):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    refused(OPTIONS, "--device: cuda is not available here", "train", "--dataset", tiny, "--device", "cuda")
    assert runs() == []


def test_a_validation_split_that_leaves_nothing(refused, tiny):
    message = "--validation-size: 119 leaves fewer than 2 of 120 images to train on; give at most 118"
    refused(OPTIONS, message, "train", "--dataset", tiny, "--validation-size", 119)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- relu\n", "must hold a mapping, such as `activation: prelu`"),
        (b"relu\n", "must hold a mapping, such as `activation: prelu`"),
        (bytes(range(256)), "it is not a text file in UTF-8"),
        (b"epochs: [1\n", "it is not valid YAML"),
        (b"epochs: 1\nepochs: 2\n", "the key 'epochs' stands twice"),
        (b"epochs: !!python/object/apply:os.getcwd []\n", "it is not valid YAML: could not determine a constructor"),
        (b"activatoin: relu\n", "--activatoin: no such option (did you mean --activation?)"),
        (b"activation: no\n", "--activation: False is not one of relu"),
        (b"epochs: {a: 1}\n", "--epochs: {'a': 1} is refused: must be a valid integer"),
    ],
)
def test_a_wrong_configuration_file(refused, work, content, message):
    (work / "wrong.yaml").write_bytes(content)
    assert "wrong.yaml" in refused(OPTIONS, message, "train", "--config", "wrong.yaml").stderr


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.yaml", "the file none.yaml:\n  - it cannot be read: No such file or directory"),
        (".", "it cannot be read: Is a directory"),
        ("", "it cannot be read"),
    ],
)
def test_no_configuration_file(refused, path, message):
    refused(OPTIONS, message, "train", "--config", path)


# ---------------------------------------------------------------------------------------------------------- data


LABELS = np.arange(120) % 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_test": None}, "changed.npz: the arrays y_test are missing (found: x_train, y_train, x_test); needed are"),
        ({"x_train": np.zeros((120, 8, 8, 3))}, "x_train is float64 of shape (120, 8, 8, 3); needed is uint8"),
        ({"x_train": np.zeros((120, 3, 8, 8), np.uint8)}, "x_train is uint8 of shape (120, 3, 8, 8); needed is uint8"),
        ({"x_test": np.zeros((30, 9, 9, 3), np.uint8)}, "training images are (8, 8, 3) and the test images (9, 9, 3)"),
        ({"y_train": LABELS[:-1]}, "x_train has 120 images and y_train 119 labels; needed is one label an image"),
        ({"y_train": LABELS * 1.0}, "y_train is float64 of shape (120,); needed are whole numbers"),
        ({"y_train": LABELS - 1}, "y_train has labels from -1 to 1; needed are 0 to 1"),
        ({"y_test": np.full(30, 7)}, "y_test has labels from 7 to 7; needed are 0 to 2"),
        ({"y_train": LABELS * 2}, "no training image has label 1; needed is every label from 0 to 4"),
        ({"classes": np.array(["a", "b"])}, "y_train has labels from 0 to 2; needed are 0 to 1"),
        ({"classes": np.array([{}, {}, {}])}, "save it as classes.astype(str)"),
    ],
)
def test_a_wrong_npz(refused, runs, write_npz, arrays, message):
    refused(DATA, message, "train", "--dataset", write_npz(**arrays))
    assert runs() == []


def test_test_images_among_the_training_images(refused, write_npz, tiny):
    path = write_npz(x_test=np.load(tiny)["x_train"][:30])
    message = "30 of the 30 test images are also training images, so a test accuracy would flatter"
    refused(DATA, message, "train", "--dataset", path)


def huge_npz() -> bytes:
    """A few hundred bytes that promise three terabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            header = io.BytesIO()
            shape = (10**9, 32, 32, 3) if name[0] == "x" else (10**9,)
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue() + b"\0" * 100)
    return file.getvalue()


def damaged(content: bytes) -> bytes:
    return content[:3000] + bytes([content[3000] ^ 255]) + content[3001:]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda whole: b"", "this is no .npz file, or a part of one"),
        (lambda whole: b"hello", "this is no .npz file, or a part of one"),
        (lambda whole: whole[: len(whole) // 2], "this is no .npz file, or a part of one"),
        (lambda whole: damaged(whole), "this .npz file is damaged (BadZipFile: Bad CRC-32 for file 'x_train.npy')"),
        (lambda whole: huge_npz(), "Unable to allocate"),
    ],
    ids=["empty", "text", "truncated", "changed", "huge"],
)
def test_a_damaged_npz(refused, work, tiny, spoil, message):
    (work / "bad.npz").write_bytes(spoil(tiny.read_bytes()))
    outcome = refused(DATA, message, "train", "--dataset", "bad.npz")
    assert f"error: {work}/bad.npz: " in outcome.stderr
    assert "load it unsafely" not in outcome.stderr


def test_no_npz(refused, work):
    refused(DATA, "none.npz: there is no such file", "train", "--dataset", "none.npz")
    (work / "folder.npz").mkdir()
    refused(
        DATA, "folder.npz: this is a directory; if it is a folder of images, give ", "train", "--dataset", "folder.npz"
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "(--data-dir) holds neither the folder cifar-10-batches-py nor cifar-10-python.tar.gz"),
        ({"cifar-10-batches-py/other": b""}, "data_batch_1 is missing; fetch CIFAR-10 again"),
        ({"cifar-10-batches-py/data_batch_1": b"x"}, "data_batch_1 is not the official file (its md5 differs)"),
        ({"cifar-10-python.tar.gz": b"x" * 1000}, "cifar-10-python.tar.gz: this archive is damaged"),
    ],
    ids=["empty", "missing", "corrupt", "no archive"],
)
def test_a_wrong_cifar10_directory(refused, work, files, message):
    (work / "data").mkdir()
    for name, content in files.items():
        path = work / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    refused(DATA, message, "train", "--data-dir", "data")
