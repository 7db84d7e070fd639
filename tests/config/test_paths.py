"""Paths: one spelling of each, and data found where they are now."""

import os

import pytest

from cifar_mlflow.config.paths import absolute
from cifar_mlflow.config.rules import faults_of, recorded, resolve, resolve_moved
from cifar_mlflow.errors import ConfigurationError


@pytest.fixture
def spellings(work, monkeypatch):
    """Ways to write the path of images.npz in the current directory."""
    monkeypatch.setenv("HOME", str(work))
    (work / "sub").mkdir()
    (work.parent / "link").symlink_to(work / "sub")
    return [
        "images.npz",
        "./images.npz",
        f"{work}//images.npz",
        "~/images.npz",
        "sub/../images.npz",
        "../link/../images.npz",
    ]


def test_every_spelling_is_one_path(work, spellings):
    assert {resolve({"dataset": path}).dataset for path in spellings} == {str(work / "images.npz")}
    assert {resolve({"data_dir": path}).data_dir for path in spellings} == {str(work / "images.npz")}


def test_a_file_that_is_a_link_keeps_its_name(work):
    (work / "images.npz").symlink_to(work / "blobs")
    assert resolve({"dataset": "images.npz"}).dataset == str(work / "images.npz")


def test_what_is_no_path_stays_as_it_is():
    config = resolve({"dataset": "digits"})
    assert (config.dataset, config.data_dir) == ("digits", "auto")


def test_a_home_that_nobody_has_is_a_directory_of_that_name(work):
    assert absolute("~nobody-here/images.npz") == str(work / "~nobody-here" / "images.npz")


def test_what_was_recorded_relative_stays_so(monkeypatch):
    assert recorded({"dataset": "images.npz"}).dataset == "images.npz"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert recorded({"dataset": "images.npz"}).dataset == "images.npz"
    assert faults_of({"dataset": "images.npz", "data_dir": "here"}) == [
        "--dataset: 'images.npz' is relative; give an absolute path under `mlflow run`",
        "--data-dir: 'here' is relative; give an absolute path under `mlflow run`",
    ]


class TestMovedData:
    @pytest.fixture
    def config(self, work):
        return resolve({"dataset": "images.npz"})

    def test_are_in_the_directory_that_is_named(self, config, work):
        assert resolve_moved(config, "elsewhere").dataset == str(work / "elsewhere" / "images.npz")

    def test_may_be_named_themselves(self, config, work):
        assert resolve_moved(config, "elsewhere/old.npz").dataset == str(work / "elsewhere" / "old.npz")

    def test_are_where_they_were_if_the_directory_has_others(self, config, work):
        (work / "images.npz").touch()
        assert resolve_moved(config, "elsewhere").dataset == str(work / "images.npz")

    @pytest.mark.parametrize("data_dir", [None, "auto"])
    def test_are_where_they_were_if_nothing_is_said(self, config, data_dir):
        assert resolve_moved(config, data_dir) == config

    def test_of_cifar10_are_in_its_directory(self, work):
        moved = resolve_moved(resolve({}), "elsewhere")
        assert (moved.dataset, moved.data_dir) == ("cifar10", os.path.join(work, "elsewhere"))

    def test_cannot_be_nowhere(self, config):
        with pytest.raises(ConfigurationError, match="--data-dir"):
            resolve_moved(config, "")
