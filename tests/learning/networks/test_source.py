"""The source of a network of the user's own: which files it is, and when it is another."""

import importlib
import sys
import types

import pytest

from cifar_mlflow.learning.networks import source


@pytest.fixture
def write(work):
    """Writes files below the current directory."""

    def files(**texts):
        for name, text in texts.items():
            path = work / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return files


def names(network):
    return set(source.of(network).files)


def test_ours_have_none():
    assert source.of("report_cnn") is source.of("fast") is None


def test_is_what_is_imported_beside_it_and_so_on(write):
    write(
        one="import json, two\nfrom torch import nn\nimport cifar_mlflow.errors\n",
        two="def f():\n    from three import g\n",
        three="import one\n",
        other="import two\n",
    )
    assert names("one:build") == {"one.py", "two.py", "three.py"}


def test_is_what_a_package_has_of_it(write, work):
    write(
        pack__sub__net="from . import near\nfrom ..far import thing\nfrom .. import up\nimport helpers\n",
        pack__sub__near="",
        pack__far="",
        pack__up="",
        pack__unused="",
        helpers="",
    )
    (work / "pack" / "__init__.py").write_text("from .begun import *\n")
    write(pack__begun="")
    of_package = {"__init__", "begun", "far", "up", "sub/net", "sub/near"}
    assert names("pack.sub.net:build") == {"helpers.py", *(f"pack/{name}.py" for name in of_package)}


def test_has_a_digest_of_every_file_and_name(write):
    write(net="import layers\n", layers="width = 1\n", other="")
    before = source.of("net:build").digest
    write(other="changed = 1\n")
    assert source.of("net:build").digest == before
    write(layers="width = 2\n")
    assert source.of("net:build").digest != before
    assert len(before) == 32


def test_of_an_installed_package_is_its_version(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages"
    (installed / "zoo").mkdir(parents=True)
    (installed / "zoo" / "__init__.py").write_text("from . import large\n")
    (installed / "zoo" / "large.py").write_text("import torch\n")
    about = installed / "zoo_networks-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: zoo-networks\nVersion: 1.2\n")
    (about / "top_level.txt").write_text("zoo\n")
    monkeypatch.syspath_prepend(str(installed))
    found = source.of("zoo:build").files
    assert found["requirements.txt"] == b"zoo-networks==1.2\n"
    assert set(found) == {"requirements.txt", "zoo/__init__.py"}


@pytest.mark.parametrize("network", ["nowhere:build", "os.nowhere:build", "__main__:build", "sys:build"])
def test_may_be_none(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # an interpreter's; pytest's has a file
    assert source.of(network).files == {}


def test_with_a_fault_is_itself_alone(write):
    write(broken="import other\ndef build(:", other="")
    assert names("broken:build") == {"broken.py"}


def test_is_told_as_it_was_imported(write, monkeypatch):
    write(plain="import detail\n", detail="a = 1\n")
    monkeypatch.syspath_prepend("")
    before = source.of("plain:build")
    try:
        importlib.import_module("plain")
        write(detail="a = 2\n")
        assert source.of("plain:build") == before
        assert source.edited("plain:build") == ["detail.py"]
        del sys.modules["plain"]
        assert source.of("plain:build").digest != before.digest
    finally:
        for name in ("plain", "detail"):
            sys.modules.pop(name, None)
