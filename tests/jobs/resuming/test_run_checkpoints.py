"""When a checkpoint is worth writing: it takes a disk half a second, and an epoch may take less."""

from types import SimpleNamespace

import pytest

from cifar_mlflow.jobs.training import checkpoints
from cifar_mlflow.jobs.training.checkpoints import RunCheckpoints

EPOCHS = 100


@pytest.fixture
def written_after(monkeypatch, work):
    """A function that returns after which of the epochs, each so many seconds long, a checkpoint was written."""
    now = 1000.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)

    def run(seconds, resumed=0):
        nonlocal now
        kept = RunCheckpoints()
        kept.open("run")
        written = []
        record = SimpleNamespace(results=[])
        kept._attached = (
            SimpleNamespace(config=SimpleNamespace(epochs=EPOCHS), stopping=SimpleNamespace(reason="")),
            record,
        )
        if resumed:
            kept._files._whole = ["one before"]

        def save():
            written.append(record.results[-1].epoch)
            kept._files._whole = ["file"]
            kept._last_time = now

        monkeypatch.setattr(kept, "save", save)
        for epoch in range(resumed + 1, EPOCHS + 1):
            record.results.append(SimpleNamespace(epoch=epoch))
            now += seconds
            kept.save_after_epoch()
        kept.close()
        return written

    return run


def test_short_epochs_have_one_in_thirty_seconds_and_the_first_and_the_last(written_after):
    assert written_after(1.0) == [1, 31, 61, 91, 100]


def test_long_epochs_have_one_each(written_after):
    assert written_after(30.0) == list(range(1, EPOCHS + 1))


def test_a_resumed_run_has_one_already(written_after):
    assert written_after(1.0, resumed=50) == [80, 100]


def test_none_is_kept_of_a_run_that_is_repeated_anyway():
    RunCheckpoints(kept=False).save_after_epoch()
