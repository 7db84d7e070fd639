"""Runs killed at any moment, and resumed: the same weights and curves as in one go. Each a process of its own."""

import contextlib
import functools
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import forked
import pytest
from mlflow import MlflowClient
from support import TINY_TRAINING

from cifar_mlflow.tracking.reading import models

# Random in all ways, so that a state that was lost would be seen.
OPTIONS = (*TINY_TRAINING, "--epochs", 4, "--augmentation", "flip_crop", "--dropout", 0.2, "--scheduler", "one_cycle")
STEPS = 4 * 14  # and as many checkpoints, if there is one a step
WRITES = 25  # to the store
NEVER_BEGAN = "broke off before its training began"


def store_of(directory):
    return MlflowClient(f"sqlite:///{directory}/mlflow.db")


def any_run(directory):
    client = store_of(directory)
    return client.search_runs([found.experiment_id for found in client.search_experiments()])


def the_run(directory):
    (run,) = any_run(directory)
    return run


def values(directory, model):
    """All tensors of the exported model, as bytes."""
    program = models.load_model(model.artifact_location.removeprefix("file://"), model.tags)
    return {name: tensor.numpy().tobytes() for name, tensor in program.state_dict().items()}


def everything(directory):
    """What a finished run has, apart from times; what it must not have twice is seen not to be."""
    client, run = store_of(directory), the_run(directory)
    assert run.info.status == "FINISHED"
    assert not list((directory / "state" / "checkpoints").glob("*/*"))
    assert len(run.inputs.dataset_inputs) == 1
    assert "failure" not in run.data.tags
    names = set(run.data.metrics) - {"images_per_second"}
    curves = {name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)] for name in names}
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "images_per_second")]
    models = client.search_logged_models([run.info.experiment_id])
    assert sorted(model.model_id for model in models) == sorted(out.model_id for out in run.outputs.model_outputs)
    weights = {model.tags["weights"]: values(directory, model) for model in models}
    assert len(weights) == len(models) == 2
    metrics = {model.tags["weights"]: {m.key: m.value for m in model.metrics} for model in models}
    files = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    return curves, steps, weights, metrics, files, run.data.params, run.data.tags["mlflow.note.content"]


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, tiny, empty_store):
    """Everything of a run in one go, and the seconds that it took."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    shutil.copy(empty_store, directory)
    assert forked.run(directory, "check").code == 0  # the first to be forked waits for the server
    started = time.monotonic()
    assert forked.run(directory, "train", "--dataset", tiny, *OPTIONS).code == 0
    return everything(directory), time.monotonic() - started


@pytest.fixture
def started(tmp_path, tiny, empty_store):
    """A function that starts the same training in a directory of its own; returns directory and process."""

    def start(**options):
        directory = Path(tmp_path / f"run{len(list(tmp_path.iterdir()))}")
        directory.mkdir()
        shutil.copy(empty_store, directory)
        return directory, forked.start(directory, "train", "--dataset", tiny, *OPTIONS, **options)

    return start


def resume(directory, **options):
    return forked.run(directory, "train", "--resume", the_run(directory).info.run_id, **options)


def check_resumed(directory, uninterrupted, times=1):
    finished = the_run(directory).info.status == "FINISHED"
    outcome = resume(directory)
    if NEVER_BEGAN in outcome.stderr:
        assert not the_run(directory).data.metrics
        return outcome
    if finished:
        assert "is finished" in outcome.stderr
    else:
        assert outcome.code == 0, outcome.output
    # What had only to be delivered was not taken up.
    if not finished and "had ended, and now all of it is in the tracking store" not in outcome.stdout:
        assert the_run(directory).data.tags["resumed"] == str(times)
    assert everything(directory) == uninterrupted[0]
    return outcome


def check_killed_before_write(number, started, uninterrupted):
    directory, process = started(kill_before_write=number)
    outcome = process.wait()
    if outcome.code == 0:
        return False
    assert outcome.code == -9, outcome.output
    check_resumed(directory, uninterrupted)
    return True


@pytest.mark.parametrize("number", [11, 20])
def test_killed_before_a_write_to_the_store(started, uninterrupted, number):
    assert check_killed_before_write(number, started, uninterrupted)


@pytest.mark.long
def test_killed_before_each_write_to_the_store(started, uninterrupted):
    number = 3  # the first two make the experiment and the run
    while check_killed_before_write(number, started, uninterrupted):
        number += 1
    assert number >= WRITES


@pytest.mark.parametrize(
    ("number", "moment", "said"),
    [
        (1, "half", "broke off before its first checkpoint"),
        pytest.param(1, "renamed", "after epoch 0 of 4 and 1 steps of the next", marks=pytest.mark.long),
        (20, "half", "after epoch 1 of 4 and 5 steps of the next"),
        pytest.param(29, "written", "after epoch 2 of 4\n", marks=pytest.mark.long),
        (STEPS, "renamed", "after epoch 4 of 4\n"),
    ],
)
def test_killed_while_a_checkpoint_is_written(started, uninterrupted, number, moment, said):
    directory, process = started(change=functools.partial(forked.kill_at_checkpoint, number, moment))
    assert process.wait().code == -9
    assert said in check_resumed(directory, uninterrupted).stderr


def check_killed_at_some_time(draw, started, uninterrupted):
    directory, process = started(change=forked.checkpoint_each_step)
    time.sleep(draw.uniform(0.1, 1.2 * uninterrupted[1]))
    process.process.kill()
    process.process.join()
    if not any_run(directory):
        return
    check_resumed(directory, uninterrupted)


def test_killed_at_some_time(started, uninterrupted):
    check_killed_at_some_time(random.Random(0), started, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 32))
def test_killed_at_some_time_or_other(started, uninterrupted, seed):
    check_killed_at_some_time(random.Random(seed), started, uninterrupted)


def check_stopped_at_some_time(draw, started, uninterrupted):
    """A signal comes; then what waits is delivered, or the run is resumed at once."""
    directory, process = started(change=forked.checkpoint_each_step)
    time.sleep(draw.uniform(0.1, 1.2 * uninterrupted[1]))
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.process.pid, draw.choice([signal.SIGINT, signal.SIGTERM]))
    process.process.join(60)
    assert process.process.exitcode is not None
    if not any_run(directory):
        return
    if draw.random() < 0.5:
        assert forked.run(directory, "sync").code == 0
    assert the_run(directory).info.status in ("KILLED", "FINISHED")
    check_resumed(directory, uninterrupted)


def test_stopped_at_some_time(started, uninterrupted):
    check_stopped_at_some_time(random.Random(0), started, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 42))
def test_stopped_at_some_time_or_other(started, uninterrupted, seed):
    check_stopped_at_some_time(random.Random(seed), started, uninterrupted)


def only_so_large(limit):
    """No file of the training's process may become larger, so that some write is done in part."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


def check_written_in_part(seed, tmp_path, tiny, server, uninterrupted):
    """The store is a server's: its own files have room."""
    limit, name = random.Random(seed).randrange(20_000, 400_000), f"in-part-{seed}"
    words = ("train", "--dataset", tiny, *OPTIONS, "--experiment", name)
    outcome = forked.run(tmp_path, *words, tracking_uri=server, change=functools.partial(only_so_large, limit))
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    assert {run.info.status for run in runs} <= {"FAILED", "FINISHED"}, outcome.output
    if outcome.code == 0:
        return
    assert outcome.code in (4, 5), outcome.output
    assert "Traceback" not in outcome.output
    (run,) = runs
    resumed = forked.run(tmp_path, "train", "--resume", run.info.run_id, tracking_uri=server)
    if NEVER_BEGAN in resumed.stderr:
        assert not run.data.metrics
        return
    assert resumed.code == 0, resumed.output
    assert list((tmp_path / "state" / "spool").iterdir()) == []
    for metric in ("val_accuracy", "train_loss"):
        points = client.get_metric_history(run.info.run_id, metric)
        assert [(point.step, point.value) for point in points] == uninterrupted[0][0][metric]
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


def test_a_write_that_the_disk_takes_in_part(tmp_path, tiny, server, uninterrupted):
    check_written_in_part(0, tmp_path, tiny, server, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 52))
def test_writes_that_the_disk_takes_in_part(tmp_path, tiny, server, uninterrupted, seed):
    check_written_in_part(seed, tmp_path, tiny, server, uninterrupted)


def test_killed_and_resumed_and_killed_again(started, uninterrupted):
    directory, process = started(kill_before_write=9)
    assert process.wait().code == -9
    assert resume(directory, change=functools.partial(forked.kill_at_checkpoint, 5, "written")).code == -9
    assert resume(directory, kill_before_write=13).code == -9
    check_resumed(directory, uninterrupted, times=3)


def test_of_two_resumes_at_once_one_goes_on(started, uninterrupted):
    directory, process = started(kill_before_write=9)
    assert process.wait().code == -9
    words = ("train", "--resume", the_run(directory).info.run_id)
    first, second = sorted(
        (each.wait() for each in [forked.start(directory, *words) for _ in range(2)]), key=lambda outcome: outcome.code
    )
    assert first.code == 0, first.output
    assert second.code in (4, 6)
    assert "is being trained by" in second.stderr or "is finished" in second.stderr
    assert everything(directory) == uninterrupted[0]
    assert the_run(directory).data.tags["resumed"] == "1"


def test_while_it_is_trained_it_cannot_be_resumed(started, uninterrupted):
    directory, process = started(change=forked.checkpoint_each_step)
    while not list((directory / "state").glob("checkpoints/*/*.checkpoint")):
        time.sleep(0.01)
    outcome = resume(directory)
    assert (outcome.code, process.wait().code) == (4, 0)
    assert "is being trained by" in outcome.stderr
    assert everything(directory) == uninterrupted[0]
