"""Real images in folders, from training to promotion; a file gets one and the same answer wherever a model is asked."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from servers import BIN, free_port, running

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.jobs.predict import load
from cifar_mlflow.learning.data import datasets, image_folder

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FEW = ("--epochs", 2, "--batch-size", 8, "--scheduler", "none", "--precision", "float32", "--threads", 1)
EACH = 24


def write(root: Path, name: str, form: str, enlarged: int, classes: int = 3) -> Path:
    """`EACH` images of each of the first classes of a dataset as files, in the folder of their class."""
    whole = datasets.load(resolve({"dataset": name, "validation_size": 0})).train
    for label in range(classes):
        chosen = np.flatnonzero(whole.labels.numpy() == label)[:EACH]
        folder = root / f"class {label}"
        folder.mkdir(parents=True)
        for number, pixels in enumerate(whole.pixels[chosen].numpy()):
            picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
            side = picture.width * enlarged
            picture.resize((side, side + 4 * (enlarged > 1)), Image.Resampling.BICUBIC).save(
                folder / f"{number}.{form}"
            )
    return root


@pytest.mark.parametrize(
    ("name", "form", "enlarged"),
    [
        pytest.param(
            "fashion_mnist", "png", 1,
            marks=pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed"),
        ),
        ("digits", "jpg", 2),
    ],
)  # fmt: skip
def test_from_training_to_promotion_and_served(work, cifar, runs, smoke_here, name, form, enlarged):
    root = write(work / "photos", name, form, enlarged)
    size = ("--image-size", 20) if enlarged > 1 else ()
    outcome = cifar("train", "--dataset", f"{root}/", *size, *FEW)
    assert outcome.code == 0, outcome.output
    run_id = outcome.stdout.split()[1]
    for command in ("evaluate", "promote"):
        assert (done := cifar(command, run_id)).code == 0, done.output

    config = resolve({"dataset": f"{root}/", **({"image_size": 20} if size else {})})
    found = image_folder.read(config, datasets.no_bar)
    files, cached = [root / found.names[row] for row in found.rows["test"]], found.pixels["test"]
    expected = load("photos@champion")(cached)
    assert 1 < len(files) == len(expected)
    predicted = cifar("predict", "photos@champion", *files, "--format", "json", "--top", 3)
    told = [json.loads(line)["predictions"] for line in predicted.stdout.splitlines()]
    for guesses, row in zip(told, expected, strict=True):
        assert {each["class"]: each["probability"] for each in guesses} == {
            f"class {label}": float(f"{probability:.7g}") for label, probability in enumerate(row)
        }
    if form == "png":  # a server starts in ten seconds
        assert served(work, np.stack([pixels_of(file, cached) for file in files])) == pytest.approx(expected, abs=1e-6)

    again = cifar("reproduce", run_id)
    assert again.stdout.splitlines()[-1].startswith("identical to the bit"), again.output
    base = {
        "dataset": f"{root}/",
        "epochs": 1,
        "batch_size": 8,
        "scheduler": "none",
        **({"image_size": 20} if size else {}),
    }
    spec = {"name": "photos", "base": base, "space": {"activation": ["relu", "elu"]}, "workers": 1, "log_models": False}
    (work / "photos.yaml").write_text(yaml.safe_dump(spec))
    assert (swept := cifar("sweep", "photos.yaml")).code == 0, swept.output
    assert len({run.data.tags["dataset_digest"] for run in runs() if "dataset_digest" in run.data.tags}) == 1


def pixels_of(file: Path, cached: np.ndarray) -> np.ndarray:
    """As anybody reads an image of the model's size who has Pillow alone."""
    pixels = np.asarray(Image.open(file))
    return pixels.reshape(cached.shape[1:])


def served(work: Path, pixels: np.ndarray) -> np.ndarray:
    """What `mlflow models serve` answers to the images."""
    port = free_port()
    command = [BIN / "mlflow", "models", "serve", "-m", "models:/photos@champion", "--env-manager", "local",
               "-h", "127.0.0.1", "-p", str(port)]  # fmt: skip
    body = json.dumps({"inputs": pixels.tolist()}).encode()
    address, store = f"http://127.0.0.1:{port}", f"sqlite:///{work}/mlflow.db"
    with running(command, work / "serve.log", f"{address}/health", MLFLOW_TRACKING_URI=store):
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return np.array(json.load(answer)["predictions"])
