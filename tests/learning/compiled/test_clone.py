"""A clone of the repository in which nothing was compiled says so when it trains, in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_mlflow.learning.compiled import bindings

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    directory = tmp_path_factory.mktemp("clone")
    shutil.copytree(
        ROOT / "cifar_mlflow", directory / "cifar_mlflow", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    shutil.copy(ROOT / "setup.py", directory)
    return directory


def python(clone, *words, **environment):
    """The package of the clone, which stands first on the path as under `mlflow run`."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone), "CC": "sh", **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def said(outcome):
    return [line for line in outcome.stderr.splitlines() if "compiled" in line]


def test_training_says_it_once(clone, tiny):
    words = ("-m", "cifar_mlflow", "train", "--dataset", tiny, "--epochs", 1, "--device", "cpu", "--offline")
    assert said(python(clone, *map(str, words))) == [
        f"warning: {clone} is a clone in which nothing was compiled; torch's own functions train in place of the "
        "compiled ones, which takes longer"
    ]


@pytest.mark.parametrize(("choice", "times"), [("auto", 1), ("none", 0)])
def test_it_is_not_said_of_functions_that_nobody_asks_for(cifar, tiny_training, monkeypatch, runs, choice, times):
    monkeypatch.setattr(bindings, "warning", lambda: "nothing was compiled")
    outcome = cifar("train", *tiny_training, "--device", "cpu", "--accelerate", choice)
    assert outcome.code == 0, outcome.output
    assert outcome.stderr.count("nothing was compiled") == times
    assert runs()[0].data.params["accelerate"] == choice
    assert (runs()[0].data.tags["kernels_used"] == "torch") == (choice == "none" or bindings.available() is None)


ASK = "from cifar_mlflow.learning.compiled import bindings; print(bindings.warning(), bindings.fault())"


def test_without_a_compiler_nothing_was_expected(clone):
    assert python(clone, "-c", ASK, CC="no-such-compiler -O2").stdout == "None None\n"


def test_what_is_installed_is_no_clone(clone):
    (clone / "setup.py").rename(clone / "away")
    try:
        assert python(clone, "-c", ASK).stdout == "None None\n"
    finally:
        (clone / "away").rename(clone / "setup.py")
