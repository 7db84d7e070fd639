"""A node of a real cluster whose environment is another one: told before anything is trained, and all of it closed."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray_nodes
from sweeps_on_ray import write_spec

import cifar_mlflow

pytestmark = pytest.mark.long
PACKAGE, TORCH = "0.0.9", "2.0.1"
SITE = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")


def another_python() -> Path | None:
    """The system's Python, if it is of the same minor version, whose packages can be shared, and of another patch."""
    place = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    command = [place, "-c", "import platform; print(platform.python_version())"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() if place.exists() else ""
    return place if told and told != platform.python_version() else None


def copy_of_the_package(directory: Path) -> None:
    """Another version of it: the same files, with another number."""
    source = Path(cifar_mlflow.__file__).parent
    shutil.copytree(source, directory / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    file = directory / source.name / "__init__.py"
    file.write_text(file.read_text().replace(f'"{cifar_mlflow.__version__}"', f'"{PACKAGE}"'))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The environment of the second node: the packages of this one, and its own before them.

    Its torch has the files of this one and another version in its metadata, which is what is compared.
    """
    directory = tmp_path_factory.mktemp("environment")
    python = another_python() or Path(sys.executable)
    subprocess.run([python, "-m", "venv", "--without-pip", "--symlinks", directory / "venv"], check=True)
    site = directory / "venv" / SITE
    (site / "parts.pth").write_text(importlib.metadata.distribution("torch").locate_file("").as_posix())
    metadata = site / f"torch-{TORCH}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {TORCH}\n")
    copy_of_the_package(directory / "other")
    return directory


@pytest.fixture(scope="module")
def another_node(place):
    # Of itself Ray would let in no other Python at all.
    with ray_nodes.cluster(place / "venv/bin/python", RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL="minor") as running:
        yield running


@pytest.fixture
def told(another_node, cifar, cifar_process, work, tiny, runs, monkeypatch):
    """A function that starts the sweep; returns what is told of the second node, and looks that nothing is left."""
    if not another_node.is_divided:
        pytest.skip("the nodes have one address")
    for name, value in another_node.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    spec = write_spec(work, tiny)

    def start() -> list[str]:
        outcome = cifar_process("sweep", spec, "--executor", "ray", "--ray-address", another_node.address)
        assert outcome.code == 1, outcome.output
        assert [run.info.status for run in runs()] == ["FAILED"]  # the parent, and no trial
        assert not any([*node.workers(), *node.actors()] for node in another_node.nodes)
        first, *lines = outcome.stderr.partition("error: ")[2].splitlines()
        assert first == "the workers cannot start:"
        beginning = f"  - {another_node.hosts[1]}: "
        assert all(line.startswith(beginning) for line in lines)
        return [line.removeprefix(beginning) for line in lines]

    return start


def test_another_torch_and_another_python(told, another_node, monkeypatch):
    # What stands in the node's directory of the same name as that of the command is not what its worker imports.
    copy_of_the_package(another_node.nodes[1].seen(another_node.hidden))
    monkeypatch.chdir(another_node.hidden)
    found = told()
    assert f"torch {TORCH} instead of {importlib.metadata.version('torch')}; install the same" in found
    if another_python() is None:
        pytest.skip("there is no Python of the same minor version and another patch")
    assert f"instead of {platform.python_version()}; install the same" in found[0]
    assert len(found) == 2


def test_another_version_of_this_package(told, place):
    # Ray puts what travels before all else, except for what an environment puts first itself.
    (place / "venv" / SITE / "first.pth").write_text(f"import sys; sys.path.insert(0, {str(place / 'other')!r})\n")
    ahead = f"cifar-mlflow {PACKAGE} instead of {cifar_mlflow.__version__}; take the other one out of the worker's path"
    assert ahead in told()
    (place / "other" / "cifar_mlflow" / "tuning" / "ray_worker.py").unlink()
    missing = (
        "ModuleNotFoundError: No module named 'cifar_mlflow.tuning.ray_worker'; install there what this process has"
    )
    assert told() == [missing]
