"""What a caller from Python gives that is of another type: refused by name before anything is done, or understood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import cifar_mlflow as cm
from cifar_mlflow.errors import ConfigurationError

RUN = "0" * 32


@pytest.fixture(autouse=True)
def _no_store(monkeypatch):
    """No store is asked before the arguments are checked."""

    def asked(*_):
        raise AssertionError("the store was asked")

    # Not our own function: modules that are imported meanwhile would keep this one.
    monkeypatch.setattr("mlflow.MlflowClient", asked)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: cm.train(3), "config: '3' is refused"),
        (lambda: cm.train([1]), "config: '[1]' is refused"),
        (lambda: cm.train(dataset="digits", callback=3), "callback: '3' is refused: it must be a function"),
        (lambda: cm.train(dataset="digits", experiment=3), "experiment: '3' is refused: it must be a valid string"),
        (lambda: cm.train(dataset="digits", offline="no"), "offline: 'no' is refused: it must be a valid boolean"),
        (lambda: cm.train(dataset="digits", progress="no"), "progress: 'no' is refused"),
        (lambda: cm.train(dataset="digits", tracking_uri=3), "tracking_uri: '3' is refused"),
        (lambda: cm.evaluate(None), "model: 'None' is refused: it must be a valid string"),
        (lambda: cm.evaluate(RUN, views=3), "views: '3' is refused: it must be 1, 2 or 6"),
        (lambda: cm.evaluate(RUN, weights="first"), "weights: 'first' is refused: it must be 'last', 'best', 'cal"),
        (lambda: cm.evaluate(RUN, dataset=np.zeros(3)), "dataset: "),
        (lambda: cm.compare(None), "what: '(None,)' is refused"),
        (lambda: cm.compare([RUN]), "what: "),
        (lambda: cm.compare("a", difference="1"), "difference: '1' is refused: it must be a valid number"),
        (lambda: cm.predict(RUN, 3), "images: 'int' is refused"),
        (lambda: cm.predict(RUN, pd.DataFrame({"path": ["a.png"]})), "images: 'DataFrame' is refused"),
        (lambda: cm.predict(RUN, [None]), "images: "),
        (lambda: cm.predict(RUN, "a.png", top="2"), "top: '2' is refused: it must be a valid integer"),
        (lambda: cm.load(None), "model: 'None' is refused"),
        (lambda: cm.promote(RUN, min_accuracy="90"), "min_accuracy: '90' is refused"),
        (lambda: cm.promote(RUN, force=True), "force: 'True' is refused: it must be a valid string"),
        (lambda: cm.rollback(3), "name: '3' is refused"),
        (lambda: cm.history(None), "name: 'None' is refused"),
        (lambda: cm.list_runs("3"), "count: '3' is refused: it must be a valid integer"),
        (lambda: cm.list_runs(0), "count: '0' is refused: it must be greater than or equal to 1"),
        (lambda: cm.doctor(fix="no"), "fix: 'no' is refused"),
        (lambda: cm.sync(to_this_store="no"), "to_this_store: 'no' is refused"),
        (lambda: cm.reproduce(RUN, tolerance="x"), "tolerance: 'x' is refused: it must be a valid number"),
        (lambda: cm.reproduce(RUN, threads=0), "--threads: 0 is refused"),
        (lambda: cm.resume(None), "run_id: 'None' is refused"),
        (lambda: cm.resume(RUN, callback=3), "callback: '3' is refused"),
        (lambda: cm.sweep(3), "spec: '3' is refused"),
        (lambda: cm.sweep(None), "spec: 'None' is refused"),
    ],
)  # fmt: skip
def test_it_is_refused_by_name(call, told):
    with pytest.raises(ConfigurationError) as refused:
        call()
    assert told in str(refused.value)


def test_all_of_them_are_told_together():
    with pytest.raises(ConfigurationError) as refused:
        cm.evaluate(3, views="2", weights=None)
    assert [each.partition(":")[0] for each in refused.value.faults] == ["model", "weights", "views"]


def test_an_argument_that_is_not_there_is_pythons_own_error():
    with pytest.raises(TypeError, match="wights"):
        cm.evaluate(RUN, wights="best")


@pytest.mark.parametrize(
    "values",
    [
        {
            "dataset": Path("a.npz"),
            "seed": np.uint8(3),
            "learning_rate": np.float32(0.5),
            "batch_norm": np.bool_(False),
        },
        {"dataset": Path("a.npz"), "seed": torch.tensor(3), "learning_rate": np.array(0.5), "batch_norm": False},
    ],
)
def test_numbers_of_other_libraries_and_paths_are_taken(monkeypatch, values):
    taken = []
    monkeypatch.setattr("cifar_mlflow.jobs.train.train", lambda config, **options: taken.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cm.train(**values)
    (config,) = taken
    assert (config.dataset, config.seed, config.learning_rate) == (str(Path("a.npz").absolute()), 3, 0.5)
    assert config.batch_norm is False
