"""A disk that is full while a model is fetched: each command says which disk, and what to do."""

import errno
import os

import mlflow.artifacts
import pytest


@pytest.mark.parametrize("command", ["evaluate", "predict", "promote"])
def test_it_is_named(cifar, trained, tiny, statuses, monkeypatch, command):
    def full(uri, dst_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.path.join(dst_path, "model.pt2"))

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", full)
    outcome = cifar(command, trained.info.run_id, *([tiny] if command == "predict" else []))
    assert (outcome.code, "cannot be loaded: no room is left in /" in outcome.stderr) == (6, True)
    assert "make some there, or set TMPDIR to another directory" in outcome.stderr
    assert statuses() == ["FINISHED"]
