"""Several trained models in one store, for what is done with models; one trained run, for what is done with runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support import TINY_TRAINING, move_store, run_here, standing_in


@dataclass(frozen=True)
class Candidates:
    """Run ids of models on the tiny dataset: `good` ones, all alike, each evaluated; one that learned nothing."""

    good: tuple[str, ...]
    broken: str


@pytest.fixture(scope="session")
def trained_candidates(tmp_path_factory, tiny, empty_store) -> tuple[Path, Candidates]:
    with standing_in(tmp_path_factory.mktemp("candidates")) as work:
        shutil.copy(empty_store, work / "mlflow.db")

        def trained(*words: object) -> str:
            outcome = run_here("train", "--dataset", tiny, *TINY_TRAINING, "--epochs", 6, *words)
            assert outcome.code == 0, outcome.output
            run_id = outcome.stdout.split()[1]
            assert run_here("evaluate", run_id).code == 0
            return run_id

        good = tuple(trained("--seed", seed) for seed in range(4))
        return work, Candidates(good, trained("--epochs", 1, "--learning-rate", 1e-7))


@pytest.fixture
def candidates(work, trained_candidates, cifar) -> Candidates:
    """The models, in a store of the test's own with files of its own."""
    move_store(trained_candidates[0], work)
    return trained_candidates[1]


@pytest.fixture
def promote(cifar, candidates):
    """Promotes a model; returns the exit code and the verdict."""

    def run(*words):
        outcome = cifar("promote", *words, "--format", "json")
        assert "Traceback" not in outcome.output
        return outcome.code, json.loads(outcome.stdout)

    return run


@pytest.fixture
def champion(client):
    """A function that returns the version that an alias of `tiny` names, or None."""

    def version(alias="champion"):
        found = client().get_registered_model("tiny").aliases.get(alias)
        return found and str(found)

    return version


@pytest.fixture
def model_directory(client):
    """A function that returns the directory of a run's last-epoch model."""

    def directory(run_id):
        outputs = client().get_run(run_id).outputs.model_outputs
        models = [client().get_logged_model(output.model_id) for output in outputs]
        (model,) = [each for each in models if each.tags["weights"] == "last"]
        return Path(model.artifact_location)

    return directory


@pytest.fixture(autouse=True)
def _threads_as_before():
    """A command sets torch's number of threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run_id(trained):
    return trained.info.run_id
