"""The model that a run leaves loads and serves where this package is not."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from servers import BIN, free_port, running

from cifar_mlflow.config import resolve
from cifar_mlflow.jobs.train import train

LOAD_AND_PREDICT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import mlflow, numpy as np
try:
    import cifar_mlflow
    raise SystemExit("this package must not be here")
except ImportError:
    pass
images = np.load(sys.argv[3])
model = mlflow.pyfunc.load_model(sys.argv[2])
print(json.dumps(np.asarray(model.predict(images)).tolist()))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a store, the URI of the last-epoch model in it, and what that model should answer."""
    directory = tmp_path_factory.mktemp("model")
    before = os.getcwd(), os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(directory)
    try:
        outcome = train(resolve({"dataset": "digits", "epochs": 1, "batch_size": 64, "threads": 1}))
        client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
        run = client.get_run(outcome.run_id)
        models = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
        (last,) = [model for model in models if model.tags["weights"] == "last"]
        predictions = np.load(Path(client.download_artifacts(outcome.run_id, "val_predictions.npz")))
    finally:
        os.chdir(before[0])
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    from cifar_mlflow.learning.data import load

    images = load(resolve({"dataset": "digits"})).validation.pixels[:4].numpy()
    return directory, last, images, predictions["probabilities"][:4]


def closure(*names):
    """The distributions that `names` need, with all they need in turn."""
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            needed = distribution(name).requires or []
        except ImportError:  # for another platform
            continue
        found.add(name)
        waiting += [re.match(r"[\w.-]+", need).group() for need in needed if "extra ==" not in need]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder of packages that holds mlflow, torch and what they need, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    for name in closure("mlflow", "torch"):
        entry = distribution(name)
        for top in {file.parts[0] for file in entry.files or [] if not str(file).startswith("..")}:
            if top != "__pycache__" and not (folder / top).exists():
                (folder / top).symlink_to(entry.locate_file(top))
    assert not (folder / "pydantic_settings").exists()
    return folder


def test_it_loads_without_this_package_and_with_pickle_forbidden(trained, bare, tmp_path):
    directory, model, images, expected = trained
    np.save(tmp_path / "images.npy", images)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-S", "-c", LOAD_AND_PREDICT, bare, model.model_uri, tmp_path / "images.npy"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=1e-6)


def test_its_requirements_do_not_name_this_package(trained):
    _, model, *_ = trained
    artifacts = Path(model.artifact_location.removeprefix("file://"))
    names = [line.split("==")[0] for line in (artifacts / "requirements.txt").read_text().split()]
    assert names == ["torch", "mlflow", "numpy"]
    assert {path.suffix for path in artifacts.rglob("*") if path.is_file()}.isdisjoint({".pkl", ".pth", ".pickle"})


def test_mlflow_serves_it(trained, tmp_path):
    directory, model, images, expected = trained
    port = free_port()
    command = [BIN / "mlflow", "models", "serve", "-m", model.model_uri,
               "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]  # fmt: skip
    address, store = f"http://127.0.0.1:{port}", f"sqlite:///{directory}/mlflow.db"
    body = json.dumps({"inputs": images[:2].tolist()}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with (
        running(command, tmp_path / "server.log", f"{address}/health", MLFLOW_TRACKING_URI=store),
        urllib.request.urlopen(request, timeout=30) as answer,
    ):
        rows = json.load(answer)["predictions"]
    np.testing.assert_allclose(rows, expected[:2], atol=1e-6)
