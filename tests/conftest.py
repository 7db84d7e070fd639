"""What all tests share: a place of their own to work in, a tiny dataset, and the command line."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from forked import PRELOADED
from programs import Program
from servers import mlflow_server
from support import TINY_TRAINING, Outcome, move_store, run_here, standing_in, tiny_arrays, with_tables

from cifar_mlflow.tracking.registry import smoke, smoke_process
from cifar_mlflow.tuning import process_executor

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is imported
MEMORY = Path("/dev/shm")
# Each commit of SQLite waits a hundredth of a second for a disk, and a training makes a hundred. Read by pytest.
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(autouse=True)
def work(tmp_path) -> Iterator[Path]:
    """A fresh current directory, with a fresh state and cache beside it."""
    with standing_in(tmp_path) as directory:
        yield directory


@pytest.fixture(scope="session", autouse=True)
def _one_font_cache(tmp_path_factory) -> Iterator[None]:
    """matplotlib would look for all fonts anew in each fresh cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_fork_server() -> Iterator[None]:
    """The workers of sweeps and the commands of `forked` come from the same, whichever is first."""
    start = process_executor.start_fork_server
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_executor, "start_fork_server", lambda preload: start([*preload, *PRELOADED]))
        yield


@pytest.fixture(autouse=True)
def _no_other_programs(work, monkeypatch) -> None:
    """Tests run side by side, and a job that tells of the others would say more than its test expects.

    `work` comes first, so that `monkeypatch` can go back to it before it is removed.
    """
    told = psutil.cpu_percent

    def quiet(interval=None, percpu=False):
        return [0.0] * len(told(percpu=True)) if percpu else told(interval)

    monkeypatch.setattr(psutil, "cpu_percent", quiet)


# ---------------------------------------------------------------------------------------------------------- data


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The .npz file of a dataset that a network learns within a second."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, **tiny_arrays())
    return path


@pytest.fixture
def write_npz(work):
    """Writes the tiny dataset with some arrays changed, or left out (None); returns the path."""

    def write(name="changed.npz", size=8, channels=3, seed=0, **changes) -> Path:
        arrays = tiny_arrays(size=size, channels=channels, seed=seed) | changes
        np.savez(work / name, **{key: value for key, value in arrays.items() if value is not None})
        return work / name

    return write


@pytest.fixture(scope="session")
def cifar10_directory() -> Path:
    """The directory of the real CIFAR-10."""
    place = os.environ.get("CIFAR_MLFLOW_DATA")
    if not place:
        pytest.skip("CIFAR_MLFLOW_DATA does not say where CIFAR-10 is")
    return Path(place)


# -------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """An initialized store without runs: creating one takes seconds, copying it none."""
    directory = tmp_path_factory.mktemp("empty_store")
    with standing_in(directory) as work:
        with_tables(work / "mlflow.db")
        assert run_here("check").code == 0
        return work / "mlflow.db"


@pytest.fixture
def cifar(work, empty_store):
    """Runs `cifar-mlflow WORDS` in this process, with a store in the current directory; returns the outcome."""
    shutil.copy(empty_store, work / "mlflow.db")
    return run_here


@pytest.fixture
def spawn(work):
    """Starts `cifar-mlflow WORDS` as a process; what still runs when the test ends is killed."""
    started = []

    def start(*words: object) -> Program:
        started.append(Program(*words))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def cifar_process(spawn):
    """Runs `cifar-mlflow WORDS` to its end, as a process of its own; returns the outcome."""

    def run(*words: object, timeout: float = 120) -> Outcome:
        process = spawn(*words)
        stdout, stderr = process.communicate(timeout=timeout)
        return Outcome(process.returncode, stdout, stderr)

    return run


# ------------------------------------------------------------------------------------------- what is in the store


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of an `mlflow server`, the same for all tests: each has experiments of its own."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def client(work):
    """A function that returns MLflow's client of the store in the current directory."""
    from mlflow import MlflowClient

    return lambda: MlflowClient(f"sqlite:///{work}/mlflow.db")


@pytest.fixture
def runs(client):
    """A function that lists all runs of all experiments of that store, the newest first."""
    from mlflow.entities import ViewType

    def listed():
        experiments = [found.experiment_id for found in client().search_experiments(ViewType.ALL)]
        return list(client().search_runs(experiments, run_view_type=ViewType.ALL))

    return listed


@pytest.fixture
def statuses(runs):
    """A function that lists the status of each run of that store, the newest first."""
    return lambda: [run.info.status for run in runs()]


@pytest.fixture
def asked(monkeypatch) -> Counter:
    """Counts what the store is asked, by the name of the method."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from cifar_mlflow.tracking.retry import PatientClient

    counts: Counter = Counter()
    plain, together = PatientClient.__getattr__, SqlAlchemyStore.get_metric_history_bulk

    def counted(self, name):
        attribute = plain(self, name)

        def call(*arguments, **options):
            counts[name] += 1
            return attribute(*arguments, **options)

        return call if callable(attribute) else attribute

    def counted_together(self, *arguments):
        counts["get_metric_history_bulk"] += 1
        return together(self, *arguments)

    monkeypatch.setattr(PatientClient, "__getattr__", counted)
    monkeypatch.setattr(SqlAlchemyStore, "get_metric_history_bulk", counted_together)
    return counts


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory, tiny, empty_store) -> tuple[Path, Outcome]:
    directory = tmp_path_factory.mktemp("trained")
    with standing_in(directory) as work:
        shutil.copy(empty_store, work / "mlflow.db")
        outcome = run_here("train", "--dataset", tiny, *TINY_TRAINING)
        assert outcome.code == 0, outcome.output
        return work / "mlflow.db", outcome


@pytest.fixture
def trained(work, cifar, client, trained_once):
    """The run of a finished training on the tiny dataset, in a store of the test's own with files of its own."""
    move_store(trained_once[0].parent, work)
    (experiment,) = [found for found in client().search_experiments() if found.name == "tiny"]
    (run,) = client().search_runs([experiment.experiment_id])
    return run


@pytest.fixture
def tiny_training(tiny) -> tuple[str, ...]:
    """The words after `train` for a training on the tiny dataset."""
    return ("--dataset", str(tiny), *TINY_TRAINING)


@pytest.fixture
def smoke_here(monkeypatch) -> None:
    """The smoke gate's script in this process: the same, less five seconds of imports."""

    def run(model, tracking_uri):
        with tempfile.TemporaryDirectory() as directory:
            result = Path(directory) / "result.json"
            try:
                smoke_process.main(str(model), str(result))
            except Exception as error:
                return smoke.SmokeResult(fault=str(error))
            return smoke.read_result(result)

    monkeypatch.setattr(logging.getLogger("torch.export"), "disabled", True)  # its words would be another process's
    monkeypatch.setattr(smoke, "run", run)
