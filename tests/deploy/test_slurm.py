"""deploy/slurm on a real Slurm of two nodes: whatever is cancelled, requeued or dies, the table is the local one."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from guides import GuideSession, in_a_clone, run_page, settings_of_jobs, wait_for_jobs
from servers import BIN
from slurm import cluster
from support import TINY_TRAINING, InlineExecutor, run_here, standing_in

from cifar_mlflow.jobs.sweeping import places

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm" / "job.sbatch"
SPACE = {"activation": ["relu", "elu"]}


@pytest.fixture(scope="session")
def slurm():
    with cluster() as found:
        yield found


@pytest.fixture
def settings(work, empty_store, monkeypatch):
    """The file of settings that jobs read; the store, the state and the logs are in the current directory."""
    shutil.copy(empty_store, work / "mlflow.db")
    path = settings_of_jobs(work, f"sqlite:///{work}/mlflow.db")
    monkeypatch.setenv("CIFAR_MLFLOW_ENV", str(path))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-for-slurm")  # of the shell that submits
    return path


@pytest.fixture
def write_spec(work, tiny):
    def write(**changes) -> Path:
        base = {"dataset": str(tiny), "epochs": 2, "batch_size": 8, "scheduler": "none", "precision": "float32"}
        spec = {"name": "tiny", "base": base, "space": SPACE, "repeats": 2, "workers": 1, "log_models": False}
        path = work / "sweep.yaml"
        path.write_text(yaml.safe_dump({**spec, **changes}))
        return path

    return write


def results(directory: Path) -> list[list[str]]:
    """The table, without run ids and times."""
    (path,) = directory.rglob("results.csv")
    lines = [line.split(",") for line in path.read_text().splitlines()]
    kept = [number for number, name in enumerate(lines[0]) if name not in ("minutes", "run_ids")]
    return [[line[number] for number in kept if number < len(line)] for line in lines]


def logs(job: str, work: Path) -> str:
    return "".join(path.read_text() for path in work.glob(f"cifar-mlflow-{job}.log"))


def check(slurm, work, runs, expected, times=4):
    """The table is as if one process had run the sweep; no run was done twice, and none is left RUNNING."""
    assert results(work) == expected, slurm.told()
    found = runs()
    assert "RUNNING" not in {run.info.status for run in found}
    trials = [run for run in found if run.data.tags["kind"] == "trial" and run.info.status == "FINISHED"]
    assert set(Counter(run.data.tags["run_fingerprint"] for run in trials).values()) == {1}
    assert len(trials) == times
    assert all("slurm_job" in run.data.tags for run in trials)
    assert Counter(run.data.tags["kind"] for run in found)["sweep"] == 1
    return trials


@pytest.fixture
def local(tmp_path_factory, empty_store, monkeypatch):
    """A function that runs the sweep in this process, in a place of its own; returns its table."""

    def table(spec: Path):
        with monkeypatch.context() as patch, standing_in(tmp_path_factory.mktemp("local")) as place:
            patch.setattr(places, "ProcessExecutor", InlineExecutor)
            shutil.copy(empty_store, place / "mlflow.db")
            outcome = run_here("sweep", spec)
            assert outcome.code == 0, outcome.output
            return results(place)

    return table


@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.long)])
def test_an_array_of_parts_the_first_of_which_is_requeued_if_there_are_four(
    slurm, settings, write_spec, work, runs, local, parts
):
    spec = write_spec()
    job = slurm.submit(SCRIPT, "sweep", spec, options=(f"--array=1-{parts}",))
    if parts == 4:
        slurm.wait_for(lambda: any(run.data.tags["kind"] == "trial" for run in runs()))
        first = next(name for name, state in slurm.states().items() if state.startswith("RUNNING"))
        slurm.requeue(first)
    slurm.wait_for(lambda: not slurm.states())
    trials = check(slurm, work, runs, local(spec))
    assert {run.data.tags["slurm_job"] for run in trials} == {f"{job}_{number}" for number in range(1, parts + 1)}
    told = "".join(path.read_text() for path in work.glob("cifar-mlflow-*.log"))
    assert {f" on {node}, start 1: cifar-mlflow sweep {spec} --part " in told for node in ("n1", "n2")} == {True}
    if parts == 4:
        assert f"job {first} on n" in told
        assert "start 2: cifar-mlflow sweep" in told
    assert "not-for-slurm" not in told
    assert told.count("winner activation") == 1


@pytest.mark.long
def test_a_training_at_the_end_of_its_time_is_requeued_and_goes_on(slurm, settings, work, runs, tiny):
    job = slurm.submit(SCRIPT, "train", "--dataset", tiny, *TINY_TRAINING, "--epochs", 4000)
    slurm.wait_for(lambda: [run for run in runs() if "val_accuracy" in run.data.metrics])
    slurm.scancel("--signal=TERM", "--batch", job)  # what --signal=B:TERM@120 comes to
    slurm.wait_for(lambda: "goes on after" in logs(job, work) or "resuming the run" in logs(job, work))
    slurm.wait_for(lambda: runs()[0].info.status == "RUNNING")
    told = logs(job, work)
    assert "saved     epoch " in told
    assert "goes on when there is room for it again" in told
    (run,) = runs()
    assert (run.info.run_name, run.data.tags["resumed"]) == (f"slurm-{job}", "1")
    slurm.scancel(job)  # which asks it to end too, and it is not requeued
    slurm.wait_for(lambda: not slurm.states())
    assert runs()[0].info.status == "KILLED"


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (lambda path: path.unlink(), ("sweep", "s.yaml"), "cannot be read; write it as docs/guides/slurm.md says"),
        (lambda path: path.chmod(0o640), ("sweep", "s.yaml"), "can be read by others; chmod 600"),
        (lambda path: None, ("--array=2-3", "sweep", "s.yaml"), "an array is for the parts of a sweep"),
    ],
)
def test_what_cannot_be_run_is_told(slurm, settings, work, change, words, message):
    change(settings)
    options = tuple(word for word in words if word.startswith("--array"))
    slurm.submit(SCRIPT, *(word for word in words if word not in options), options=options)
    slurm.wait_for(lambda: message in slurm.told())
    slurm.wait_for(lambda: not slurm.states())


@pytest.mark.long
def test_cancelled_requeued_and_a_node_down_and_back(slurm, settings, work, runs, tmp_path_factory, local):
    spec = ROOT / "experiments" / "quick.yaml"
    job = slurm.submit(SCRIPT, "sweep", spec, options=("--array=1-4",))

    def running(node=""):
        return [name for name, state in slurm.states().items() if state.startswith("RUNNING") and node in state]

    def trials():
        return [run for run in runs() if run.data.tags["kind"] == "trial"]

    slurm.wait_for(lambda: len(trials()) >= 1)
    cancelled = running()[0]
    slurm.scancel(cancelled)
    slurm.wait_for(lambda: len(trials()) >= 3)
    slurm.requeue(running()[0])
    slurm.wait_for(lambda: running("n2") and any(run.info.status == "RUNNING" for run in trials()))
    slurm.kill_node("n2")
    time.sleep(10)  # until the controller has noticed
    slurm.start_node("n2")
    slurm.submit(SCRIPT, "sweep", spec, "--part", f"{cancelled.partition('_')[2]}/4")
    slurm.wait_for(lambda: not slurm.states(), 1200)
    assert job in cancelled
    check(slurm, work, runs, local(spec), times=12)


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.long)])
def test_the_commands_of_the_guide(slurm, tmp_path, monkeypatch, empty_store, short):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SLURM_CONF", slurm.configuration)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    stands_for = {
        "http://tracking.example:5000": f"sqlite:///{tmp_path}/mlflow.db",
        "/shared/ann/cifar-mlflow": f"{tmp_path}/state",
        "/shared/data": str(tmp_path),
        "PATH=/shared/ann/cifar_mlflow/.venv/bin": f"PYTHONPATH={ROOT}\nOMP_NUM_THREADS=1\nPATH={BIN}",
        # Two nodes with a processor each, and no GPU.
        "--cpus-per-task=16 ": "",
        "--gres=gpu:1 --time=12:00:00 ": "",
        "experiments/halving.yaml": "experiments/quick.yaml",
        "--config experiments/final.yaml": "--dataset digits --epochs 1 --scheduler none",
    }
    session = GuideSession(stands_for, after=lambda text: wait_for_jobs(slurm, text, cancel=short))
    with in_a_clone(tmp_path, short):
        assert run_page("slurm.md", session, short=short) >= 3
        assert (tmp_path / ".config" / "cifar-mlflow.env").stat().st_mode & 0o777 == 0o600
        if not short:
            told = "".join(path.read_text() for path in Path.cwd().glob("cifar-mlflow-*.log"))
            assert "winner " in told
            assert "error:" not in told
