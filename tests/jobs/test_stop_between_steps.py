"""SIGTERM ends a training between two steps, with a checkpoint of the last one."""

from __future__ import annotations

import os
import shutil
import signal
import time

import forked
import pytest
from mlflow import MlflowClient
from support import TINY_TRAINING

from cifar_mlflow.errors import Interrupted
from cifar_mlflow.jobs.training import signals

OPTIONS = (*TINY_TRAINING, "--epochs", 3, "--dropout", 0.2)


def sigterm_in_step() -> None:
    """Sends this process SIGTERM in the tenth step of the second epoch, of 14."""
    from cifar_mlflow.learning.optimizers import schedule

    original, count = schedule.Schedule.after_step, 0

    def counted(self):
        nonlocal count
        original(self)
        count += 1
        if count == 14 + 10:
            os.kill(os.getpid(), signal.SIGTERM)

    schedule.Schedule.after_step = counted


def curves(directory):
    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    (run,) = client.search_runs([found.experiment_id for found in client.search_experiments()])
    names = set(run.data.metrics) - {"images_per_second"}
    points = {name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)] for name in names}
    return run, points


def test_sigterm_keeps_the_step_and_resume_comes_to_the_same_bits(tmp_path, tiny, empty_store):
    found = {}
    for name, change in (("whole", None), ("stopped", sigterm_in_step)):
        (tmp_path / name).mkdir()
        shutil.copy(empty_store, tmp_path / name)
        outcome = forked.run(tmp_path / name, "train", "--dataset", tiny, *OPTIONS, change=change)
        found[name] = curves(tmp_path / name)
    assert outcome.code == 143, outcome.output
    assert "saved     epoch 1 of 3 and 10 steps of the next in " in outcome.stderr
    assert "stopped by SIGTERM" in outcome.stderr
    run = found["stopped"][0]
    assert run.info.status == "KILLED"
    outcome = forked.run(tmp_path / "stopped", "train", "--resume", run.info.run_id)
    assert outcome.code == 0, outcome.output
    assert curves(tmp_path / "stopped")[1] == found["whole"][1]


@pytest.fixture
def interrupting():
    """SIGTERM as the command line has it."""
    before = {number: signal.getsignal(number) for number in signals.STOPPING}
    signals.interrupt_at_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_waits_for_the_end_of_the_step(interrupting):
    stop, asked = signals.Stop(), []

    def step():
        os.kill(os.getpid(), signal.SIGTERM)
        asked.append(stop.asked)
        stop.now()
        pytest.fail("it takes effect here")

    with pytest.raises(Interrupted, match="SIGTERM"), stop.between_steps(lambda: asked.append("told")):
        step()
    assert asked == ["told", True]


def test_a_signal_that_nobody_took_takes_effect_at_the_end_of_the_block(interrupting):
    with pytest.raises(Interrupted), signals.Stop().between_steps(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("how", ["it is sent again", "the step does not end"])
def test_a_step_that_takes_too_long_is_interrupted(interrupting, monkeypatch, how):
    monkeypatch.setattr(signals, "GRACE", 0.05 if how == "the step does not end" else 60.0)

    def step():
        os.kill(os.getpid(), signal.SIGTERM)
        if how == "it is sent again":
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    with pytest.raises(Interrupted), signals.Stop().between_steps(lambda: None):
        step()


def test_in_a_program_that_does_not_handle_it_the_signal_is_left_alone():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        stop = signals.Stop()
        with stop.between_steps(lambda: None):
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGTERM)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGTERM, before)
