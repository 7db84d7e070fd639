"""An ONNX file answers as the model does, for any number of images, or there is none."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from cifar_mlflow.tracking.registry import smoke

onnxruntime = pytest.importorskip("onnxruntime")


def test_the_file_answers_as_the_model(cifar, client, work, unsure):
    from cifar_mlflow.jobs.predict import load

    exported = cifar("export", unsure, "--output", "net.onnx")
    assert exported.code == 0, exported.output
    assert "the recorded example is answered within" in exported.stdout
    session = onnxruntime.InferenceSession(work / "net.onnx")
    (images,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:], answer.name) == (
        "images", "tensor(uint8)", [8, 8, 3], "probabilities",
    )  # fmt: skip
    model = load(unsure)
    for number in (1, 3, 101):
        pixels = np.random.default_rng(number).integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)
        (told,) = session.run(None, {images.name: pixels})
        assert told == pytest.approx(model(pixels), abs=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert (json.loads(about["classes"]), about["model"]) == (["0", "1", "2"], model.uri)
    assert [path.name for path in work.iterdir() if "onnx" in path.name] == ["net.onnx"]


def test_a_file_that_answers_something_else_is_not_written(cifar, work, unsure, monkeypatch):
    (work / "model.onnx").write_bytes(b"before")
    run = smoke.run_onnx

    def shifted(content, example):
        ran = run(content, example)
        return dataclasses.replace(ran, probabilities=ran.probabilities + np.float32(2e-4))

    monkeypatch.setattr(smoke, "run_onnx", shifted)
    outcome = cifar("export", unsure)
    assert outcome.code == 6
    assert "differ by 0.0002 from the recorded ones; at most 0.0001 is allowed, so nothing is written" in outcome.stderr
    assert (work / "model.onnx").read_bytes() == b"before"


def test_what_onnxruntime_cannot_load_is_told(cifar, work, unsure, monkeypatch):
    from cifar_mlflow.learning import export

    monkeypatch.setattr(export, "onnx_file", lambda program, images, about: b"\0\0")
    outcome = cifar("export", unsure)
    assert outcome.code == 6
    assert "onnxruntime cannot use what models:/" in outcome.stderr
    assert not (work / "model.onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(cifar, unsure, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    outcome = cifar("export", unsure)
    assert outcome.code == 2
    assert f"--format onnx needs the package {package}: pip install 'cifar-mlflow[onnx]'" in outcome.stderr


def test_a_place_that_cannot_be_written_is_named(cifar, unsure, monkeypatch):
    from cifar_mlflow.learning import export

    monkeypatch.delattr(export, "onnx_file")  # it is told before any work
    outcome = cifar("export", unsure, "--output", "nowhere/net.onnx")
    assert (outcome.code, "Traceback" in outcome.output) == (2, False)
    assert "--output: nowhere/net.onnx cannot be written: No such file or directory" in outcome.stderr
