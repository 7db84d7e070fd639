"""Memory that is short, of a processor or a GPU, in any command: exit code 5 with what to do, and nothing is lost."""

import errno

import mlflow.artifacts
import numpy as np
import pytest
import torch

import cifar_mlflow as cm
from cifar_mlflow.analysis import classification
from cifar_mlflow.analysis.comparison import configurations
from cifar_mlflow.errors import TrainingError
from cifar_mlflow.learning import evaluation
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.memory import is_out_of_memory
from cifar_mlflow.tracking.reading import metric_curves
from cifar_mlflow.tracking.registry import versions

OF_A_PROCESSOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = {
    "Python": MemoryError(),
    "a processor": OF_A_PROCESSOR,
    "a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
    "the system": OSError(errno.ENOMEM, "Cannot allocate memory"),
}
SAID = "error: memory is short: end other programs, ask for less at once, or use a machine with more of it ("


def short(monkeypatch, where, name, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(where, name, fail)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_it_is_told_of_whatever_library(cifar, trained, statuses, monkeypatch, error):
    short(monkeypatch, evaluation, "probabilities", error)
    outcome = cifar("evaluate", trained.info.run_id)
    assert (outcome.code, SAID in outcome.stderr) == (5, True)
    assert statuses() == ["FINISHED"]


@pytest.mark.parametrize(
    ("command", "where", "name"),
    [
        ("evaluate", datasets, "load_recorded"),
        ("evaluate", mlflow.artifacts, "download_artifacts"),  # and not that the model cannot be loaded
        ("evaluate", classification, "score"),
        ("predict", evaluation, "probabilities"),
        ("predict", mlflow.artifacts, "download_artifacts"),
        ("promote", evaluation, "probabilities"),
        ("promote", mlflow.artifacts, "download_artifacts"),
        ("compare", configurations, "group_by_configuration"),
        ("reproduce", datasets, "load_recorded"),
        ("reproduce", metric_curves, "read_run"),
        ("history", versions, "read_all"),
    ],
)
def test_every_command_ends_with_what_to_do(
    cifar, client, trained, tiny, statuses, monkeypatch, smoke_here, command, where, name
):
    words = {"predict": (trained.info.run_id, tiny), "history": ("tiny",)}.get(command, (trained.info.run_id,))
    if command == "history":
        client().create_registered_model("tiny")
    short(monkeypatch, where, name, OF_A_PROCESSOR)
    outcome = cifar(command, *words)
    assert (outcome.code, SAID in outcome.stderr) == (5, True), outcome.output
    assert "Traceback" not in outcome.output
    assert set(statuses()) == {"FINISHED"}


def test_from_python_it_is_an_error_of_ours(cifar, trained, monkeypatch):
    short(monkeypatch, evaluation, "probabilities", OF_A_PROCESSOR)
    with pytest.raises(TrainingError, match="memory is short"):
        cm.evaluate(trained.info.run_id)


def test_numpys_own_class_is_known():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**56)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)
