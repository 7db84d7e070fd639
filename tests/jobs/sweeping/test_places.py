"""Where a sweep has room for its workers: cores, GPUs, a cluster. The GPUs are made up: none is at hand."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import InlineExecutor

from cifar_mlflow.config.sweep import SweepConfig, parse_spec
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError, TrackingError
from cifar_mlflow.jobs import listener
from cifar_mlflow.jobs.sweeping import places, trial
from cifar_mlflow.learning import hardware


def spec(**changes) -> SweepConfig:
    values = {"name": "s", "base": {"dataset": "digits"}, "space": {"activation": ["relu"]}, **changes}
    return parse_spec(values, Path.cwd())


@pytest.fixture(autouse=True)
def _a_worker_s_process():
    """It keeps its store and data from trial to trial, and its listener to the end."""
    trial.forget()
    with listener.listening(listener.NOBODY):
        yield


@pytest.fixture
def with_gpus(monkeypatch):
    """A function that makes this machine one with so many GPUs."""

    def there(number: int, visible: str | None = None) -> None:
        monkeypatch.setattr(hardware, "choose_device", lambda config: torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return there


@pytest.fixture
def made(monkeypatch):
    """The arguments with which workers were made."""
    calls = []
    monkeypatch.setattr(places, "ProcessExecutor", lambda *arguments: calls.append(arguments))
    return calls


def test_without_a_gpu_there_is_a_worker_for_each_thread_and_no_device(monkeypatch, made):
    monkeypatch.setattr(places, "cores", lambda: 8)
    place = places.Here(spec(threads=2))
    assert (place.most_workers(spec(threads=2)), place.measured_here, place.room) == (4, True, "8 cores")
    place.executor(spec(), 4, None, None, None, [])
    assert made[0][-1] == []


@pytest.mark.parametrize(
    ("number", "visible", "share", "devices"),
    [
        (3, None, 1.0, ["0", "1", "2"]),
        (2, None, 0.5, ["0", "1", "0", "1"]),
        (1, None, 0.3, ["0", "0", "0"]),
        (2, "4,7", 1.0, ["4", "7"]),
        (2, "GPU-a, GPU-b", 1.0, ["GPU-a", "GPU-b"]),
    ],
)
def test_each_worker_has_its_gpu_or_its_share_of_one(with_gpus, made, number, visible, share, devices):
    with_gpus(number, visible)
    swept = spec(gpus_per_worker=share)
    place = places.Here(swept)
    assert places.workers(swept, place) == len(devices)
    assert not place.measured_here  # or the driver would hold memory of a GPU
    place.executor(swept, len(devices), None, None, None, [])
    assert made[0][-1] == devices


def test_fewer_workers_than_there_are_gpus(with_gpus):
    with_gpus(4)
    swept = spec(workers=2)
    assert places.workers(swept, places.Here(swept)) == 2


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_is_of_one_gpu(share):
    with pytest.raises(ConfigurationError, match="gpus_per_worker"):
        spec(gpus_per_worker=share)


@pytest.mark.parametrize(
    ("cpus", "gpus", "changes", "workers"),
    [
        (8, 0, {"threads": 2}, 4),
        (8, 2, {}, 2),
        (8, 2, {"gpus_per_worker": 0.25}, 8),
        (3, 2, {"gpus_per_worker": 0.25}, 3),
        (8, 2, {"base": {"dataset": "digits", "device": "cpu"}}, 8),
    ],
)
def test_the_room_of_a_cluster(cpus, gpus, changes, workers):
    swept = spec(**changes)
    place = places.OnRay(swept, SimpleNamespace(resources=lambda: (cpus, gpus)))
    assert places.workers(swept, place) == workers


def test_a_cluster_without_room_is_told():
    with pytest.raises(ConfigurationError, match="a worker needs 4 CPUs, and there are 2 CPUs free in the cluster"):
        places.OnRay(spec(threads=4), SimpleNamespace(resources=lambda: (2, 0)))


def test_on_a_gpu_a_worker_measures_the_speed(with_gpus, cifar, work, tiny, monkeypatch):
    with_gpus(1)
    from cifar_mlflow.jobs.sweeping import worker

    measured = []
    monkeypatch.setattr(worker, "images_per_second", lambda spec: measured.append(os.getpid()) or 1000.0)
    monkeypatch.setattr(places, "ProcessExecutor", InlineExecutor)
    monkeypatch.setattr(hardware, "choose_device", lambda config: torch.device("cuda"))
    path = work / "sweep.yaml"
    path.write_text(
        f"{{name: s, base: {{dataset: {tiny}, epochs: 1}}, space: {{activation: [relu]}}, log_models: false}}"
    )
    outcome = cifar("sweep", path)
    assert measured  # and what followed has failed: there is no such device
    assert "1 to train by 1 worker with 1 thread each\n" in outcome.stderr
    assert "about 1" in outcome.stderr


def test_options_that_have_no_effect_together(cifar, work, tiny):
    path = work / "sweep.yaml"
    path.write_text(f"{{name: s, base: {{dataset: {tiny}}}, space: {{activation: [relu]}}}}")
    told = cifar("sweep", path, "--ray-address", "h:1").stderr
    assert "--ray-address: it has no effect without --executor ray" in told
    told = cifar("sweep", path, "--executor", "ray", "--part", "1/2", "--wait").stderr
    assert "2 faults in the options" in told
    assert "--part: not with --executor ray" in told
    assert "--wait: not with --executor ray" in told


def test_a_network_of_ones_own_travels_with_the_files_beside_it(work, monkeypatch):
    (work / "mine.py").write_text("import helper\n")
    (work / "helper.py").write_text("x = 1\n")
    swept = spec(space={"network": ["report_cnn", "mine:build"]})
    assert places.own_code(swept) == {"mine.py": b"import helper\n", "helper.py": b"x = 1\n"}


def test_what_a_worker_elsewhere_must_find_is_told_all_at_once(trained, tiny):
    swept = spec(base={"dataset": str(tiny)})
    here = trial.digests(trial.settings(swept.base_config))
    trial.prepare(swept, expected=trial.Expected(trained.info.run_id, "sweep", here))
    with pytest.raises(CifarMlflowError) as told:
        trial.prepare(swept, expected=trial.Expected("0" * 32, "sweep", ("other", *here[1:])))
    store, data = str(told.value).split("; ")
    assert store.startswith("the tracking store: ")
    assert "0" * 32 in store
    assert data == f"other data than the driver has (digest {here[0]}, not other)"


def test_data_that_are_not_there_are_told_as_well(trained, work, tiny):
    swept = spec(base={"dataset": str(work / "gone.npz")})
    with pytest.raises(CifarMlflowError, match=r"^the data: .*gone\.npz"):
        trial.prepare(swept, expected=trial.Expected(trained.info.run_id, "sweep", ("", "", "")))


def test_a_trial_elsewhere_ends_when_the_store_has_all_of_it(monkeypatch):
    waiting = [{"run": "no server"}, {"run": "no server"}, {}]
    monkeypatch.setattr(trial, "_deliver", lambda sweep_id: waiting.pop(0))
    monkeypatch.setattr(trial.time, "sleep", lambda seconds: None)
    run = trial.TrialRun(None, "", {"sweep_id": "s"})
    with trial.delivered(run):
        pass
    assert waiting == []
    with pytest.raises(KeyboardInterrupt), trial.delivered(run):  # it asks for nothing more
        raise KeyboardInterrupt


def test_a_store_that_stays_away_fails_the_trial_with_what_to_do(monkeypatch):
    monkeypatch.setattr(trial, "_deliver", lambda sweep_id: {"run": "no server"})
    monkeypatch.setattr(trial, "PATIENCE", -1.0)
    with (
        pytest.raises(TrackingError, match=r"\(no server\); `cifar-mlflow sync` there delivers it"),
        trial.delivered(trial.TrialRun(None, "", {"sweep_id": "s"})),
    ):
        pass
