"""The recorder of a training: what it writes is in the outbox, what is there already is left out, faults are told."""

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import delivery, spooled_recorder
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.outbox.spooled_recorder import Recorded, SpooledRecorder
from cifar_mlflow.tracking.store import connect
from cifar_mlflow.tracking.writing.model_files import ExportedModel
from cifar_mlflow.tracking.writing.recorder import Recorder

TAGS = {"kind": "single"}


@pytest.fixture
def offline():
    """A run that is recorded without a store."""
    run = SpooledRecorder.start(None, "e", "n", TAGS)
    yield run
    run.close()


@pytest.fixture
def asleep(monkeypatch):
    """No thread delivers: what is written stays, until `wake` is called for nothing."""

    class Worker:
        def __init__(self, store, outbox):
            self.outbox, self.refusal, self.trouble, self.woken, self.patience = outbox, None, None, 0, None

        def wake(self):
            self.woken += 1

        def close(self, patience):
            self.patience = patience
            return self.outbox.close()

    monkeypatch.setattr(spooled_recorder, "DeliveryWorker", Worker)


def start(store, **options):
    return SpooledRecorder.start(store, "e", "n", TAGS, **options)


def records_of(run):
    found = []
    while record := run._outbox.next(found[-1].number if found else -1):
        found.append(record)
    return found


# ------------------------------------------------------------------------------------------------------ where it goes


def test_without_a_store_all_waits_in_an_outbox_of_its_own(offline):
    (first,) = records_of(offline)
    assert (first.kind, first.values["experiment"], first.values["name"]) == ("run", "e", "n")
    assert first.values["tags"] == TAGS
    assert offline.directory == spool_directory() / offline.run_id
    assert (offline.url, offline.experiment_id, offline.trouble, offline.waiting) == (None, "", None, 1)
    assert offline.close() == 1
    assert offline.directory.exists()


def test_with_a_store_the_run_is_made_at_once_and_the_outbox_has_its_name(cifar, asleep, runs):
    store = connect()
    run = start(store)
    (made,) = runs()
    assert (run.run_id, run.experiment_id) == (made.info.run_id, made.info.experiment_id)
    assert (run.run_name, run.directory.name) == (made.info.run_name, made.info.run_id)
    assert len(made.data.tags[delivery.RUN_TAG]) == 32
    assert (run._outbox.run_id, run._outbox.noted("store")) == (made.info.run_id, store.uri)
    assert run._worker.woken == 0  # nothing is to be done for the run itself
    run.set_tags({"a": "b"})
    assert run._worker.woken == 1
    run._worker.trouble = "no answer"
    assert run.trouble == "no answer"


@pytest.fixture
def unreachable(cifar, monkeypatch):
    store = connect()

    def fail(*arguments, **options):
        raise TrackingError("no MLflow server answers")

    monkeypatch.setattr(store.client, "create_run", fail, raising=False)
    return store


def test_a_store_that_does_not_answer_ends_a_run_before_it_begins(unreachable, asleep):
    with pytest.raises(TrackingError, match="no MLflow server answers"):
        start(unreachable)
    assert not spool_directory().exists()


def test_a_run_may_wait_for_a_store_that_does_not_answer(unreachable, asleep):
    run = start(unreachable, may_wait=True)
    assert (run.run_id, run._outbox.run_id, run._outbox.noted("store")) == (run.directory.name, None, unreachable.uri)
    assert run._worker is not None
    run.close()


def test_a_run_that_can_have_no_outbox_is_failed(cifar, asleep, statuses, monkeypatch):
    monkeypatch.setenv("CIFAR_MLFLOW_STATE", "/proc/nowhere")
    with pytest.raises(TrackingError, match="CIFAR_MLFLOW_STATE"):
        start(connect())
    assert statuses() == ["FAILED"]


# ---------------------------------------------------------------------------------------------------- what is written


def test_each_write_is_a_record_with_its_time(offline, monkeypatch):
    monkeypatch.setattr(spooled_recorder, "time", SimpleNamespace(time=lambda: 12.3456))
    offline.log_parameters({"epochs": "3"})
    offline.log_metrics({"a": 1.0}, step=2)
    offline.log_metrics({"a": 2.0}, step=3, timestamp=7)
    offline.log_metrics({"b": 3.0})
    offline.log_dataset("d", "0", "s", {"images": 1}, "training")
    offline.set_tags({"x": "y"})
    offline.finish("KILLED")
    assert [(each.kind, each.values) for each in records_of(offline)[1:]] == [
        ("parameters", {"parameters": {"epochs": "3"}}),
        ("metrics", {"metrics": {"a": 1.0}, "step": 2, "timestamp": 12345}),
        ("metrics", {"metrics": {"a": 2.0}, "step": 3, "timestamp": 7}),
        ("metrics", {"metrics": {"b": 3.0}, "step": 0, "timestamp": 12345}),
        ("dataset", {"name": "d", "digest": "0", "source": "s", "profile": {"images": 1}, "context": "training"}),
        ("tags", {"tags": {"x": "y"}}),
        ("finish", {"status": "KILLED", "timestamp": 12345}),
    ]


def test_files_lie_beside_their_record(offline):
    offline.log_files({"a.txt": b"1", "b/c.txt": b"2"})
    record = records_of(offline)[-1]
    path = offline._outbox.payload(record.number)
    assert record.kind == "files"
    assert [(path / name).read_bytes() for name in ("a.txt", "b/c.txt")] == [b"1", b"2"]


def test_what_the_run_has_already_is_left_out(offline):
    offline.recorded = Recorded(steps={"a": frozenset({0, 1})}, dataset=True)
    offline.log_metrics({"a": 1.0}, step=1)
    offline.log_metrics({"a": 1.0})
    offline.log_dataset("d", "0", "s", {}, "training")
    assert len(records_of(offline)) == 1
    offline.log_metrics({"a": 2.0, "b": 3.0}, step=1)
    offline.log_metrics({"a": 4.0}, step=2)
    found = [(each.values["metrics"], each.values["step"]) for each in records_of(offline)[1:]]
    assert found == [({"b": 3.0}, 1), ({"a": 4.0}, 2)]


def exported(weights, epoch):
    example, answer = np.zeros((1, 2, 2, 1), dtype=np.uint8), np.ones((1, 1), dtype=np.float32)
    return ExportedModel(torch.nn.Linear(10, 10), f"n-{weights}", weights, epoch, example, answer, ("a",), [])


@pytest.fixture
def saved(monkeypatch):
    """The epochs of the models that are saved meanwhile, as a file that names the one of which it is a copy."""
    epochs = []

    def save(exported, directory):
        epochs.append(exported.epoch)
        directory.mkdir()
        (directory / "weights").write_text(str(exported.epoch))

    def save_copy(source, exported, directory):
        (directory / "model").write_text(f"{exported.weights} of {(source / 'weights').read_text()}")

    monkeypatch.setattr(spooled_recorder, "model_files", SimpleNamespace(save=save, save_copy=save_copy))
    return epochs


def test_models_of_one_epoch_are_exported_once(offline, saved):
    offline.log_models([(exported("last", 9), {"final": 1.0}), (exported("best", 9), {"best": 2.0})])
    found = [(each.kind, each.values["metrics"]) for each in records_of(offline)[1:]]
    assert found == [("model", {"final": 1.0}), ("model", {"best": 2.0})]
    texts = [(offline._outbox.payload(number) / "model").read_text() for number in (1, 2)]
    assert (texts, saved) == (["last of 9", "best of 9"], [9])
    offline.log_models([(exported("last", 9), {}), (exported("best", 4), {})])
    assert saved == [9, 9, 4]
    assert [path.name for path in offline.directory.iterdir() if path.is_dir()] == ["payload"]


def test_a_model_that_the_run_has_is_not_exported_and_its_metrics_are_written(offline, saved):
    offline.recorded = Recorded(models={"last": "m-1"}, steps={"final": frozenset({0})})
    offline.log_models([(exported("last", 9), {"final": 1.0, "loss": 2.0}), (exported("best", 9), {"final": 3.0})])
    found = [(each.kind, each.values["metrics"]) for each in records_of(offline)[1:]]
    assert (found, saved) == ([("metrics", {"loss": 2.0}), ("model", {})], [9])


@pytest.mark.parametrize(("short", "fits"), [(0, True), (1, False)])
def test_a_model_needs_room_for_itself_and_a_copy_for_each_use(offline, saved, monkeypatch, short, fits):
    """torch would end the whole process where it cannot write."""
    model = exported("last", 1)
    bytes_of_it = 110 * 4 + spooled_recorder.ROOM_BESIDE_WEIGHTS
    free = spooled_recorder.FILES_OF_A_MODEL * bytes_of_it - short
    monkeypatch.setattr(spooled_recorder.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    if fits:
        offline.log_models([(model, {})])
        assert saved == [1]
    else:
        with pytest.raises(TrackingError, match="no room is left"):
            offline.log_models([(model, {})])
        assert saved == []


# ------------------------------------------------------------------------------------------------------------- faults


def test_a_refusal_is_told_at_the_next_write_once_and_never_at_the_end(cifar, asleep):
    run = start(connect())
    run._worker.refusal = "the store refuses it"
    run.set_tags({"a": "b"})
    with pytest.raises(TrackingError, match="the store refuses it"):
        run.log_metrics({"a": 1.0})
    run.log_metrics({"a": 1.0})
    run._worker.refusal = "another"
    run.finish("FAILED")
    assert [each.kind for each in records_of(run)[1:]] == ["tags", "metrics", "finish"]


@pytest.fixture
def full(monkeypatch):
    """Fills the disk."""

    def fill(number=errno.ENOSPC, name=None):
        def fail(self, kind, **values):
            raise OSError(number, os.strerror(number), name)

        monkeypatch.setattr(Outbox, "append", fail)

    return fill


@pytest.mark.parametrize(("status", "told"), [("FINISHED", "FAILED"), ("KILLED", "KILLED")])
def test_the_store_is_told_where_the_end_cannot_be_written(cifar, asleep, statuses, full, status, told):
    run = start(connect())
    full()
    with pytest.raises(TrackingError, match="no room is left"):
        run.finish(status)
    assert statuses() == [told]


def test_without_a_store_the_end_that_cannot_be_written_is_an_error_alone(offline, full):
    full()
    with pytest.raises(TrackingError, match=r"no room is left in .*: make some there"):
        offline.finish("FINISHED")


@pytest.mark.parametrize("name", [None, "/some/file"])
def test_what_cannot_be_written_is_named_with_what_to_do(offline, full, name):
    full(errno.EIO, name)
    expected = f"{name or offline.directory} cannot be written (Input/output error): make room there, or set "
    with pytest.raises(TrackingError) as raised:
        offline.set_tags({"a": "b"})
    assert str(raised.value) == f"{expected}$CIFAR_MLFLOW_STATE to a directory with more"


def test_how_much_waits_cannot_be_told_of_an_outbox_that_is_gone(offline, monkeypatch):
    def fail(self):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_count", lambda self, which: fail(self))
        with pytest.raises(TrackingError, match="Input/output error"):
            _ = offline.waiting


@pytest.mark.parametrize(
    ("timeout", "given", "patience"),
    [(None, None, 15.0), ("3", None, 15.0), ("60", None, 60.0), ("60", 1.0, 1.0), (None, 0.0, 0.0)],
)
def test_at_the_end_it_waits_as_long_as_a_request_may_take(cifar, asleep, monkeypatch, timeout, given, patience):
    run = start(connect())
    if timeout is None:
        monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    else:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", timeout)
    assert run.close(given) == 1
    assert run._worker.patience == patience


def test_a_run_taken_up_again_has_an_outbox_of_another_name(cifar, asleep):
    store = connect()
    recorder = Recorder.start(store, "e", "n", TAGS)
    run = SpooledRecorder.to(store, recorder, f"{recorder.run_id}-2", "e", TAGS)
    assert (run.run_id, run.directory.name) == (recorder.run_id, f"{recorder.run_id}-2")
