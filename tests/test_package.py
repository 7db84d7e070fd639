"""What is built of the project is whole, and serves outside of a clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import cifar_mlflow

ROOT = Path(__file__).parent.parent
PARTS = ("cifar_mlflow", "experiments", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE",
         "CHANGELOG.md", "MLproject", "conda.yaml")  # fmt: skip
NO_COMPILER = {"CC": "/bin/false"}  # the functions are optional, and take longer than all the rest
TRAINS = """
import sys
from cifar_mlflow import cli
for words in ("train --dataset digits --epochs 1 --scheduler none", "compare digits --format html"):
    sys.argv = ["cifar-mlflow", *words.split()]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code
"""


def call(*words, directory, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind, source, target, **environment) -> Path:
    hook = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    call("-c", hook, directory=source, **environment)
    (built,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture
def source(tmp_path):
    """The files of a clone."""
    clone = tmp_path / "clone"
    clone.mkdir()
    leave_out = shutil.ignore_patterns("__pycache__", "*.so")
    for part in PARTS:
        path = ROOT / part
        shutil.copytree(path, clone / part, ignore=leave_out) if path.is_dir() else shutil.copy(path, clone)
    return clone


@pytest.mark.parametrize(
    "compiler", [pytest.param(NO_COMPILER, id="without-compiler"),
                 pytest.param({}, id="with-compiler", marks=pytest.mark.long)]
)  # fmt: skip
def test_an_sdist_makes_a_wheel_that_trains_anywhere(source, tmp_path, work, compiler):
    packed = build("sdist", source, tmp_path)
    assert packed.name == f"cifar_mlflow-{cifar_mlflow.__version__}.tar.gz"
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "sdist", filter="data")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    assert (unpacked / "experiments" / "quick.yaml").exists()
    assert (unpacked / "MLproject").exists()
    wheel = build("wheel", unpacked, tmp_path, **compiler)

    site = tmp_path / "site"
    call("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel, directory=work)
    kernels = list((site / "cifar_mlflow").rglob("*.so"))
    assert bool(kernels) == (not compiler and shutil.which("gcc") is not None)

    def command(*words):
        return call("-m", "cifar_mlflow", *words, directory=work, PYTHONPATH=str(site))

    assert command("--version") == f"cifar-mlflow, version {cifar_mlflow.__version__}\n"
    where = call("-c", "import cifar_mlflow; print(cifar_mlflow.__file__)", directory=work, PYTHONPATH=str(site))
    assert where.startswith(str(site))
    told = call("-c", TRAINS, directory=work, PYTHONPATH=str(site))
    assert "done: digits" in told
    assert "<html" in told.partition("done: digits")[2]  # the page's template is shipped


def test_what_only_a_clone_has_is_named(cifar):
    outcome = cifar("sweep", "experiments/quick.yaml")
    assert outcome.code == 2
    assert "experiments/ is part of the repository, not of the installed package: stand in a clone" in outcome.stderr
    assert "repository" not in cifar("sweep", "quick.yaml").stderr
