"""Running `smoke_process.py` and `onnx_process.py`: do a model's files work for those without this package?"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_mlflow.text import redact

PROCESS, ONNX_PROCESS = (Path(__file__).with_name(name) for name in ("smoke_process.py", "onnx_process.py"))
TIMEOUT = 300  # seconds; most of what it takes are the imports of torch and MLflow
LOADER = "mlflow.pytorch"


@dataclass(frozen=True)
class SmokeResult:
    """What the process came to: `probabilities` float32 (n, classes) for the example, or the `fault` that ended it."""

    seconds: float = 0.0
    probabilities: np.ndarray | None = None
    fault: str = ""


def code_asked_for(described: dict[str, Any]) -> str | None:
    """What in an MLmodel file would make MLflow run more than torch's own loader; None if there is nothing."""
    try:
        flavors = described["flavors"]
        loader, code = flavors["python_function"]["loader_module"], flavors["python_function"].get("code")
        more = sorted(set(flavors) - {"python_function", "pytorch"})
        code = code or flavors["pytorch"].get("code")
    except (KeyError, TypeError, AttributeError) as error:
        return f"its MLmodel file cannot be read ({type(error).__name__}: {error})"
    if loader != LOADER:
        return f"its MLmodel file asks for the loader {loader!r} instead of {LOADER!r}"
    return f"its MLmodel file asks for code of its own: {code or ', '.join(more)}" if code or more else None


def run(model: Path, tracking_uri: str) -> SmokeResult:
    """Loads the files in the directory `model` and answers their example, in a fresh process."""
    return _run(PROCESS, [str(model.absolute())], tracking_uri)


def run_onnx(content: bytes, example: np.ndarray) -> SmokeResult:
    """Loads the content of an ONNX file in onnxruntime and answers the `example`, in a fresh process without torch."""
    with tempfile.TemporaryDirectory() as directory:
        model, images = Path(directory) / "model.onnx", Path(directory) / "example.npy"
        model.write_bytes(content)
        np.save(images, example)
        return _run(ONNX_PROCESS, [str(model), str(images)])


def _run(script: Path, words: Sequence[str], tracking_uri: str = "") -> SmokeResult:
    """What comes of the script, to which the file for its result is given last."""
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    env["MLFLOW_TRACKING_URI"] = tracking_uri
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        # Not -I: torch and MLflow may be where `pip install --user` puts them, or on PYTHONPATH. What is kept away is
        # the directory of the script, and this package by the script itself.
        command = [sys.executable, "-P", str(script), *words, str(result)]
        try:
            ended = subprocess.run(command, env=env, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return SmokeResult(fault=f"did not answer within {TIMEOUT} s")
        if not result.exists():
            lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
            return SmokeResult(fault=redact(lines[-1] if lines else f"ended with exit code {ended.returncode}")[:500])
        return read_result(result)


def read_result(file: Path) -> SmokeResult:
    """What the process has written."""
    told = json.loads(file.read_text(encoding="utf-8"))
    return SmokeResult(told["seconds"], np.array(told["probabilities"], dtype=np.float32))
