"""What a job changes is put back when the last job that runs in the process has ended."""

import logging
import os
import threading

import pytest

from cifar_mlflow import process_state

NAME = "CIFAR_MLFLOW_TEST"


@pytest.fixture(autouse=True)
def _there_before(monkeypatch):
    monkeypatch.setenv(NAME, "theirs")


@process_state.preserved()
def job(value):
    """A job that changes, twice, and says what it then found."""
    process_state.set_variable(f"{NAME}_NEW", "new")
    process_state.set_variable(NAME, "first")
    process_state.set_variable(NAME, value)
    process_state.set_level("mine.below", logging.ERROR)
    return os.environ[NAME], logging.getLogger("mine.below").level


def test_a_change_is_undone_however_often_and_however_the_job_ends():
    for _ in range(2):
        assert job("ours") == ("ours", logging.ERROR)
        assert (os.environ[NAME], os.environ.get(f"{NAME}_NEW")) == ("theirs", None)
        assert logging.getLogger("mine.below").level == logging.NOTSET
    with pytest.raises(TypeError):
        job(3)
    assert os.environ[NAME] == "theirs"


def test_a_job_within_a_job_leaves_the_outer_one_what_it_has_set():
    with process_state.preserved():
        process_state.set_variable(NAME, "outer")
        job("inner")
        assert os.environ[NAME] == "inner"
    assert os.environ[NAME] == "theirs"


def test_jobs_in_threads_are_undone_with_the_last():
    within, leave = threading.Event(), threading.Event()

    def long_one():
        with process_state.preserved():
            process_state.set_variable(NAME, "long")
            within.set()
            leave.wait(10)

    thread = threading.Thread(target=long_one)
    thread.start()
    within.wait(10)
    job("short")
    assert os.environ[NAME] == "short"
    leave.set()
    thread.join()
    assert os.environ[NAME] == "theirs"


def test_a_process_of_ours_outside_of_any_job_keeps_what_is_set():
    process_state.set_variable(NAME, "worker")
    job("ours")
    assert os.environ[NAME] == "worker"
