"""The process in which a model is tried, from its start to its end, with a stand-in for MLflow that loads at once."""

import json
import sys

import numpy as np
import pytest

from cifar_mlflow.tracking.registry import smoke
from cifar_mlflow.tracking.registry.smoke import SmokeResult

STAND_IN = """
import json, os, sys, time
import numpy as np

NAMES = ("TRACKING_URI", "RUN_ID", "ALLOW_PICKLE_DESERIALIZATION")

def load_model(directory):
    try:
        import cifar_mlflow
        ours = "it can be imported"
    except ImportError:
        ours = "no"
    told = {"directory": directory, "ours": ours}
    told |= {name: os.environ.get(f"MLFLOW_{name}") for name in NAMES}
    open(os.path.join(directory, "told.json"), "w").write(json.dumps(told))
    return Model()

class Model:
    input_example = [[1, 2], [3, 4]]
    def predict(self, example):
        assert example.dtype == np.uint8
        time.sleep(0.05)
        return example / 8
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    package = tmp_path / "packages" / "mlflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "pyfunc.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{':'.join(sys.path)}")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)


def test_it_answers_the_example_without_this_package_and_without_pickle(stand_in, tmp_path):
    (tmp_path / "model").mkdir()
    outcome = smoke.run(tmp_path / "model", "sqlite:///x.db")
    assert outcome.fault == ""
    assert outcome.probabilities.tolist() == [[0.125, 0.25], [0.375, 0.5]]
    assert outcome.probabilities.dtype == np.float32
    assert 0.05 <= outcome.seconds < 60
    told = json.loads((tmp_path / "model" / "told.json").read_text())
    assert told.pop("directory") == str(tmp_path / "model")
    expected = {"ours": "no", "TRACKING_URI": "sqlite:///x.db", "RUN_ID": None}
    assert told == {**expected, "ALLOW_PICKLE_DESERIALIZATION": "false"}


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (
            "raise ValueError('no such layer at http://user:secret@host')",
            "ValueError: no such layer at http://***@host",
        ),
        ("import sys; print('one\\n\\n two \\n', file=sys.stderr)", "two"),
        ("raise ValueError('x' * 1000)", "ValueError: " + "x" * 488),
        ("import sys; sys.exit(3)", "ended with exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with exit code -9"),
    ],
)
def test_how_it_ends_otherwise_is_the_fault(tmp_path, monkeypatch, script, fault):
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setattr(smoke, "PROCESS", tmp_path / "script.py")
    outcome = smoke.run(tmp_path, "sqlite:///x.db")
    assert (outcome.fault, outcome.probabilities, outcome.seconds) == (fault, None, 0.0)


def test_one_that_hangs_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text("import time; time.sleep(3600)")
    monkeypatch.setattr(smoke, "PROCESS", tmp_path / "script.py")
    monkeypatch.setattr(smoke, "TIMEOUT", 0.2)
    assert smoke.run(tmp_path, "sqlite:///x.db") == SmokeResult(fault="did not answer within 0.2 s")


def described(loader="mlflow.pytorch", code=None, torch_code=None, **more):
    function = {"loader_module": loader, "code": code}
    return {"flavors": {"python_function": function, "pytorch": {"code": torch_code}, **more}}


FUNCTION = {"loader_module": "mlflow.pytorch"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (described(), None),
        ({"flavors": {"python_function": FUNCTION, "pytorch": {}}}, None),
        (described(loader="evil"), "asks for the loader 'evil' instead of 'mlflow.pytorch'"),
        (described(code="code"), "asks for code of its own: code"),
        (described(torch_code="lib"), "asks for code of its own: lib"),
        (described(sklearn={}, keras={}), "asks for code of its own: keras, sklearn"),
        ({}, "cannot be read (KeyError: 'flavors')"),
        ({"flavors": {"python_function": FUNCTION}}, "cannot be read (KeyError: 'pytorch')"),
        ({"flavors": None}, "cannot be read (TypeError: 'NoneType' object is not subscriptable)"),
        (
            {"flavors": {"python_function": FUNCTION, "pytorch": []}},
            "cannot be read (AttributeError: 'list' object has no attribute 'get')",
        ),
    ],
)
def test_what_a_model_s_file_asks_for(content, told):
    assert smoke.code_asked_for(content) == (told and f"its MLmodel file {told}")
