"""The process in which a model is tried: what it sees of this machine's packages, and of this package."""

import subprocess
import sys
from pathlib import Path

import pytest

from cifar_mlflow.tracking.registry import smoke

TELLS = """
import json, os, sys
sys.modules["cifar_mlflow"] = None
import elsewhere
told = {"seconds": 1.0, "probabilities": [[float(os.path.isdir(sys.argv[1]))]]}
open(sys.argv[2], "w").write(json.dumps(told))
"""


@pytest.mark.parametrize("place", ["PYTHONPATH", "user"])
def test_packages_are_found_where_this_process_finds_them(tmp_path, monkeypatch, place):
    """As after `pip install --user`, which `python -I` does not see."""
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    home = tmp_path / "packages"
    if place == "user":
        # A virtual environment has no user's directory, so the interpreter below it is asked.
        monkeypatch.setattr(sys, "executable", str(Path(sys.executable).resolve()))
        ask = "import site; print(site.getusersitepackages())"
        home = Path(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout.strip())
    else:
        monkeypatch.setenv("PYTHONPATH", str(home))
    home.mkdir(parents=True)
    (home / "elsewhere.py").write_text("")
    script = tmp_path / "script.py"
    script.write_text(TELLS)
    monkeypatch.setattr(smoke, "PROCESS", script)
    outcome = smoke.run(tmp_path, "sqlite:///mlflow.db")
    assert (outcome.fault, outcome.probabilities) == ("", [[1.0]])
