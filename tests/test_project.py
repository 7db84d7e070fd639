"""The files at the root agree with the package, and the package with its own plan."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from mlflow.projects import utils as project_utils
from mlflow.utils.environment import _PythonEnv

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.text import as_option

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cifar_mlflow"


def project():
    return project_utils.load_project(str(ROOT))


def packages():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def imports(path):
    """(top-level package, second part) of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "cifar_mlflow":
                names = [f"cifar_mlflow.{alias.name}" for alias in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            yield top, rest.split(".")[0]


def test_conda_yaml_and_pyproject_ask_for_the_same_packages():
    (listed,) = [entry["pip"] for entry in yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
                 if isinstance(entry, dict)]  # fmt: skip
    assert listed == packages()


def test_every_package_has_an_upper_bound():
    assert all(">=" in package and ",<" in package for package in packages())


def test_every_package_that_is_imported_is_asked_for():
    here = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    optional = [*extras["ray"], *extras["onnx"]]
    names = {re.match(r"[\w-]+", package).group().lower() for package in [*packages(), *optional]}
    asked_for = {here.get(name, name) for name in names} | set(sys.stdlib_module_names) | {"cifar_mlflow"}
    assert {top for path in PACKAGE.rglob("*.py") for top, _ in imports(path)} <= asked_for


def test_the_version_stands_in_the_package_alone_and_its_types_are_shipped():
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert (read["project"].get("version"), read["project"]["dynamic"]) == (None, ["version"])
    assert read["tool"]["setuptools"]["dynamic"] == {"version": {"attr": "cifar_mlflow.__version__"}}
    # setuptools reads it without importing the package only if it is a literal.
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+"$', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert "py.typed" in read["tool"]["setuptools"]["package-data"]["cifar_mlflow"]
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_mlflow_reads_conda_yaml_without_dropping_a_package():
    environment = _PythonEnv.from_conda_yaml(str(ROOT / "conda.yaml"))
    assert environment.dependencies == packages()


@pytest.mark.parametrize("entry_point", ["main", "train"])
def test_train_declares_every_field_with_its_default(entry_point):
    declared = {name: str(p.default) for name, p in project().get_entry_point(entry_point).parameters.items()}
    assert declared.pop("wait") == "false"
    assert declared == {name: as_option(field.default) for name, field in TrainingConfig.model_fields.items()}


def test_train_passes_every_field_to_the_command():
    values = {name: f"value-of-{name}" for name in TrainingConfig.model_fields}
    command = project().get_entry_point("main").compute_command(values, storage_dir=None)
    for name, value in values.items():
        assert f"--{name.replace('_', '-')} {value}" in command


def test_preset_passes_any_field_after_the_file(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("epochs: 3")
    command = project().get_entry_point("preset").compute_command({"config": str(config), "epochs": "5"}, None)
    assert command == f"python -m cifar_mlflow train --config {config} --wait false --epochs 5"


@pytest.mark.parametrize("entry_point", ["main", "train", "preset", "resume", "sweep", "reproduce"])
def test_whatever_trains_can_wait_for_its_turn(entry_point, tmp_path):
    for name in ("config", "spec"):
        (tmp_path / name).write_text("")
    values = {"config": str(tmp_path / "config"), "spec": str(tmp_path / "spec"), "run": "0" * 32, "wait": "true"}
    entry = project().get_entry_point(entry_point)
    given = {name: value for name, value in values.items() if name in entry.parameters}
    assert "--wait true" in entry.compute_command(given, None)
