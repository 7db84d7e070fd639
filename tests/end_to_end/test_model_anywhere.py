"""The model that a run leaves loads and serves where this package is not."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from servers import free_port, wait_for
from support import with_tables

from cifar_mlflow.config.rules import resolve
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
    with_tables(directory / "mlflow.db")
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
    from cifar_mlflow.learning.data.datasets import load

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


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    """A function that sends a body to `mlflow models serve` of the champion; returns the status and the answer."""
    directory, model, *_ = trained
    store = f"sqlite:///{directory}/mlflow.db"
    client = MlflowClient(store)
    client.create_registered_model("digits")
    mlflow.set_tracking_uri(store)  # MLflow looks the model up there, whatever the client's own store is
    client.create_model_version("digits", model.model_uri, model_id=model.model_id)
    mlflow.set_tracking_uri(None)
    client.set_registered_model_alias("digits", "champion", "1")
    port = free_port()
    programs = Path(sys.executable).parent
    command = [programs / "mlflow", "models", "serve", "-m", "models:/digits@champion",
               "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment = kept | {"MLFLOW_TRACKING_URI": store, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    address, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("served") / "log"

    def ask(body, kind="application/json"):
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": kind} if kind else {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(f"{address}/health", lambda: server.poll() is None, log)
        yield ask
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_mlflow_serves_the_champion(served, trained):
    _, _, images, expected = trained
    for count in (1, 2, 4):
        status, answer = served(json.dumps({"inputs": images[:count].tolist()}).encode())
        assert status == 200
        np.testing.assert_allclose(answer["predictions"], expected[:count], atol=1e-6)


def malformed(images):
    """Bodies that are not what the model takes, by what is wrong with them."""
    good = images[:1].tolist()
    as_text = json.dumps({"inputs": good}).encode()
    return {
        "nothing": b"",
        "no JSON": b"what is this?",
        "half of it": as_text[: len(as_text) // 2],
        "bytes": bytes(range(256)),
        "not UTF-8": b'{"inputs": "\xff\xfe"}',
        "null": b"null",
        "a number": b"42",
        "a list": b"[]",
        "empty mapping": b"{}",
        "unknown key": json.dumps({"pictures": good}).encode(),
        "two keys": json.dumps({"inputs": good, "instances": good}).encode(),
        "inputs null": b'{"inputs": null}',
        "inputs a text": b'{"inputs": "frog"}',
        "inputs empty": b'{"inputs": []}',
        "one image without its batch": json.dumps({"inputs": good[0]}).encode(),
        "too small": json.dumps({"inputs": images[:1, :16].tolist()}).encode(),
        "two channels": json.dumps({"inputs": images[:1, :, :, :2].tolist()}).encode(),
        "ragged": json.dumps({"inputs": [good[0], good[0][:5]]}).encode(),
        "texts as pixels": json.dumps({"inputs": np.full(images[:1].shape, "x").tolist()}).encode(),
        "too bright": json.dumps({"inputs": (images[:1].astype(int) + 300).tolist()}).encode(),
        "negative": json.dumps({"inputs": (images[:1].astype(int) - 300).tolist()}).encode(),
        "not a number": json.dumps({"inputs": np.full(images[:1].shape, np.nan).tolist()}).encode(),
        "a table": json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1]]}}).encode(),
        "deep": b'{"inputs": ' + b"[" * 50 + b"]" * 50 + b"}",
    }


def test_malformed_requests_get_a_4xx_and_the_server_stays_up(served, trained):
    _, _, images, expected = trained
    answers = {wrong: served(body)[0] for wrong, body in malformed(images).items()}
    answers["a picture"] = served(b"\x89PNG\r\n\x1a\n", "image/png")[0]
    answers["no content type"] = served(json.dumps({"inputs": images[:1].tolist()}).encode(), None)[0]
    assert {wrong: status for wrong, status in answers.items() if not 400 <= status < 500} == {}
    status, answer = served(json.dumps({"inputs": images[:1].tolist()}).encode())
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], expected[:1], atol=1e-6)
