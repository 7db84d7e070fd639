"""What is compared before the first trial, and what keeps a process out of a cluster: in words, without a cluster."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from cifar_mlflow.errors import CifarMlflowError, ConfigurationError
from cifar_mlflow.tuning import ray_cluster, worker_checks
from cifar_mlflow.tuning.worker_checks import clock_fault, facts, faults


def test_a_process_agrees_with_itself():
    assert list(faults(facts(), facts())) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"python": "3.9.1"}, "Python 3.9.1 instead of 3."),
        ({"torch": "1.0.0"}, "torch 1.0.0 instead of 2."),
        ({"torch": "none"}, "torch none instead of 2."),
        ({"package": "0.0.1"}, "cifar-mlflow 0.0.1 instead of "),
        ({"source": "0" * 16}, "another source of cifar-mlflow "),
    ],
)
def test_each_difference_is_told_with_what_to_do(change, told):
    here = facts()
    (found,) = faults(here, replace(here, **change))
    assert found.startswith(told)
    assert "install" in found or "remove" in found or "take" in found


def test_all_differences_are_told_together():
    assert len(list(faults(facts(), replace(facts(), python="3.9.1", torch="1.0.0", source="0" * 16)))) == 3


def test_the_digest_is_of_every_file_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    for name in ("__init__.py", "inner/a.py", "inner/b.so", "inner/notes.txt"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(worker_checks.cifar_mlflow, "__file__", str(tmp_path / "__init__.py"))
    before = facts().source
    (tmp_path / "inner" / "notes.txt").write_text("changed")
    assert facts().source == before
    for name in ("__init__.py", "inner/a.py", "inner/b.so"):
        (tmp_path / name).write_text("changed")
        assert facts().source != before
        (tmp_path / name).write_text(name)
    assert facts().source == before


@pytest.mark.parametrize(
    ("there", "told"),
    [(103, None), (95, None), (115, None), (116, "6 seconds ahead"), (94, "6 seconds behind"), (3700, "ahead")],
)
def test_a_clock_is_held_against_the_time_in_which_it_was_asked(there, told):
    found = clock_fault(there, asked=100, answered=110)
    assert found is None if told is None else told in found


def test_ray_s_own_check_of_versions_is_told_in_our_words():
    utils = pytest.importorskip("ray._private.utils", reason="Ray is not installed")
    with pytest.raises(RuntimeError) as refused:
        utils.check_version_info({"ray_version": "2.0.0", "python_version": "3.9.1"}, "this process")
    told = str(ray_cluster._in_our_words("head:6379", refused.value, ""))
    assert told.startswith("the Ray cluster at head:6379 has Ray 2.0.0 and Python 3.9.1, this process Ray 2.")
    assert told.endswith("; install the same on all nodes, to the patch")


@pytest.mark.parametrize(
    ("error", "said", "told"),
    [
        (ConnectionError("x"), "InvalidAuthToken", "the Ray cluster refuses the token"),
        (ConnectionError("Could not find any running"), "", "no Ray cluster answers on this machine"),
        (ValueError("something\nelse"), "", "the Ray cluster cannot be used from here (something)"),
    ],
)
def test_what_else_ray_raises(error, said, told):
    assert told in str(ray_cluster._in_our_words("auto", error, said))


def test_without_ray_it_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"ray is not installed; pip install 'cifar-mlflow\[ray\]'"):
        ray_cluster.connect(None, tmp_path / "ray.log", {})


def test_code_that_is_too_large_does_not_travel():
    with pytest.raises(CifarMlflowError, match=r"the code that would travel to the workers has 10[0-9] MiB"):
        ray_cluster._checked_code_size({"large.py": bytes(100 * 2**20)})
    ray_cluster._checked_code_size({"small.py": b"1"})


def test_what_is_carried_to_a_worker(monkeypatch):
    for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "CIFAR_MLFLOW_DATA", "MLFLOW_RUN_ID", "SECRET"):
        monkeypatch.setenv(name, name)
    carried = ray_cluster.carried()
    assert {"MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "CIFAR_MLFLOW_DATA"} <= carried.keys()
    assert not {"MLFLOW_RUN_ID", "SECRET"} & carried.keys()
