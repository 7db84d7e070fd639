"""Jobs called from Python print nothing, and leave the process that calls them as it was."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import forked
import numpy as np
import pytest
import yaml

from cifar_mlflow.errors import DataError, Diverged

FAST = {"epochs": 2, "batch_size": 8, "scheduler": "none", "precision": "float32", "threads": 1}
DIVERGING = {"learning_rate": 1e30, "optimizer": "sgd", "batch_norm": False, "activation": "relu"}
NETWORK = "import torch\ndef build(classes, config):\n    return torch.nn.Sequential(torch.nn.Flatten(), {})"


def state():
    """All of a process that a job could change."""
    import mlflow
    import torch

    return {
        "environment": dict(os.environ),
        "garbage collection": (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()),
        "path": list(sys.path),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "threads": torch.get_num_threads(),
        "determinism": (torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "torch": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_float32_matmul_precision()),
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),
        "MLflow": (mlflow.get_tracking_uri(), mlflow.get_registry_uri()),
        "loggers": {name: logging.getLogger(name).level for name in ("PIL", "alembic", "optuna", "mlflow", "")},
        "warnings": list(warnings.filters),
        "directory": os.getcwd(),
        "streams": (id(sys.stdout), id(sys.stderr), id(sys.excepthook)),
    }


def unlike_ours():
    """Settings that a caller may have, none of which is what a job works with."""
    import torch

    from cifar_mlflow.learning import hardware

    def changed():
        raise AssertionError("the C library's memory is the caller's")

    hardware.keep_freed_memory = changed
    gc.set_threshold(701, 11, 12)
    torch.set_num_threads(2)
    torch.utils.deterministic.fill_uninitialized_memory = True
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(77)
    for name in ("PIL", "alembic", "optuna"):
        logging.getLogger(name).setLevel(logging.INFO)
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "33"
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"


def watched(job, *arguments):
    """What a job has changed and printed, and the words of its error; called in a process of its own."""
    unlike_ours()
    with open("printed", "w+b") as file:
        streams = [os.dup(stream) for stream in (1, 2)]
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        before, told = state(), ""
        try:
            job(*arguments)
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        after = state()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
        file.seek(0)
        printed = file.read().decode()
    return [f"{name}: {before[name]} -> {after[name]}" for name in before if before[name] != after[name]], printed, told


@pytest.fixture
def unchanged(work):
    """Calls a job in a process of its own; nothing must be printed or changed. Returns the words of its error."""

    def call(job, *arguments):
        changed, printed, told = forked.call(work, watched, job, *arguments)
        assert changed == []
        assert printed == ""
        return told

    return call


def train(dataset, offline=False, **options):
    from cifar_mlflow.config.rules import resolve
    from cifar_mlflow.jobs.train import train

    return train(resolve({"dataset": dataset, **FAST, **options}), offline=offline)


def train_in_a_thread(dataset):
    thread = threading.Thread(target=train, args=(dataset,))
    thread.start()
    thread.join()


def train_interrupted(dataset):
    from contextlib import nullcontext

    from cifar_mlflow.jobs.listener import Listener, TrainingListener, listening

    class Impatient(TrainingListener):
        def epoch(self, result):
            raise KeyboardInterrupt

    class Other(Listener):
        def training(self, *arguments):
            return nullcontext(Impatient())

    with listening(Other()):
        train(dataset)


def resume(dataset):
    from cifar_mlflow.jobs.resume import resume

    with suppress(KeyboardInterrupt):
        train_interrupted(dataset)
    (directory,) = [path for path in Path("state/checkpoints").iterdir() if path.is_dir()]
    assert resume(directory.name).best_epoch


def sweep(dataset):
    from cifar_mlflow.jobs.sweep import sweep

    spec = {"name": "quiet", "base": {"dataset": dataset, **FAST}, "space": {"activation": ["relu", "elu"]}}
    del spec["base"]["threads"]
    Path("sweep.yaml").write_text(yaml.safe_dump({**spec, "repeats": 2, "workers": 1, "log_models": False}))
    assert sweep("sweep.yaml").runs == 4


def with_the_run(run_id, image):
    """All jobs that are about a model, one after the other."""
    from cifar_mlflow.jobs import compare, evaluate, history, predict, promote, reproduce, rollback
    from cifar_mlflow.jobs.promotion.gates import Thresholds

    assert evaluate.evaluate(run_id, views=2).interval
    assert len(list(predict.predict(run_id, [image, "broken.tiff"]).results)) == 2
    assert compare.compare([run_id]).rows
    assert promote.promote(run_id, thresholds=Thresholds(min_accuracy=1.0)).status == "promoted"
    assert history.history("tiny").moves
    assert reproduce.training_command(run_id)
    assert reproduce.reproduce(run_id).reproduced
    rollback.rollback("tiny")  # there is nothing before


def of_the_machine(dataset):
    from cifar_mlflow.jobs import doctor, setup, sync

    train(dataset, offline=True)
    assert sync.sync().delivered
    assert setup.check().startswith("sqlite:///")
    assert doctor.doctor(fix=True).well
    setup.download("nowhere")


def test_train(unchanged, cifar, tiny):
    assert unchanged(train, str(tiny)) == ""


def test_train_of_a_network_of_the_users_own(unchanged, cifar, work, tiny):
    (work / "mine.py").write_text(NETWORK.format("torch.nn.Linear(192, classes)"))
    assert unchanged(train_own, str(tiny)) == ""


def train_own(dataset):
    train(dataset, network="mine:build", validation_size=0)


def train_diverging(dataset):
    train(dataset, **DIVERGING)


def test_train_that_fails(unchanged, cifar, tiny):
    assert unchanged(train_diverging, str(tiny)).startswith(Diverged.__name__)


@pytest.mark.parametrize("job", [train_interrupted, train_in_a_thread, resume, sweep])
def test_trainings(unchanged, cifar, tiny, job):
    assert unchanged(job, str(tiny)) == ("KeyboardInterrupt: " if job is train_interrupted else "")


def test_jobs_about_a_model(unchanged, trained, work):
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(work / "image.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(work / "broken.tiff")
    content = (work / "broken.tiff").read_bytes()
    (work / "broken.tiff").write_bytes(content[: len(content) // 2])
    told = unchanged(with_the_run, trained.info.run_id, str(work / "image.png"))
    assert told.startswith("PromotionRefused: there is nothing to roll tiny back to")


def test_jobs_about_this_machine(unchanged, cifar, tiny):
    assert unchanged(of_the_machine, str(tiny)).startswith(DataError.__name__)


PROGRAM = """
import json, os, sys
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.jobs.train import train
before = {{"path": list(sys.path), **os.environ}}
train(resolve({{"dataset": {dataset!r}, **{fast}}}))
after = {{"path": list(sys.path), **os.environ}}
changed = {{name: after.get(name) for name in {{*before, *after}} if before.get(name) != after.get(name)}}
import torch
from torch.utils import deterministic
torchs = [torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory, torch.initial_seed() != 0]
print(json.dumps([changed, *torchs]))
"""


def test_a_process_that_had_imported_nothing_has_torchs_own_settings_afterwards(cifar, tiny):
    program = PROGRAM.format(dataset=str(tiny), fast=FAST)
    # MLflow names its telemetry's session in the environment, and an import of it may remove what it finds there.
    inherited = {name: value for name, value in os.environ.items() if name != "_MLFLOW_TELEMETRY_SESSION_ID"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, env=inherited)
    assert ended.stderr == ""
    assert json.loads(ended.stdout) == [{}, 0, True, True]
