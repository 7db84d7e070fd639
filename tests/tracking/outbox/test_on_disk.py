"""What an outbox owes to the disk: what is reported as written is there, and nothing is read that was not written."""

import os
import shutil
import sqlite3
import threading

import pytest
from support import RUN

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import locks, log
from cifar_mlflow.tracking.outbox.log import Outbox


@pytest.fixture
def outbox(tmp_path):
    opened = Outbox(tmp_path / "one", new=True)
    opened.append("run", **RUN)
    yield opened
    opened.close()


def kinds(outbox):
    found, after = [], -1
    while record := outbox.next(after):
        found.append(record.kind)
        after = record.number
    return found


@pytest.fixture
def synced(monkeypatch):
    """The paths that are brought to the disk meanwhile."""
    paths, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (paths.append(os.readlink(f"/proc/self/fd/{file}")), real(file)))
    return paths


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux tells which files are open")
def test_the_files_of_a_record_are_on_the_disk_before_it(outbox, synced):
    path = outbox.next_payload()
    (path / "sub").mkdir()
    (path / "sub" / "a").write_bytes(b"1")
    outbox.append("files")
    assert set(synced) == {str(each) for each in (path / "sub" / "a", path / "sub", path, path.parent)}
    synced.clear()
    outbox.append("tags", tags={})
    assert synced == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux tells which files are open")
def test_a_new_outbox_is_on_the_disk_with_its_place(tmp_path, synced):
    Outbox(tmp_path / "two", new=True).close()
    assert set(synced) == {str(tmp_path / "two"), str(tmp_path)}


def test_files_of_a_record_that_was_never_completed_are_not_taken_for_another_s(outbox):
    (outbox.next_payload() / "left").write_bytes(b"1")
    assert list(outbox.next_payload().iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        "content = replace(content, '1.0', '7.0')",
        "content = replace(content, '1.0', '0.0')",
        "content = CAST(content AS BLOB)",
        "checksum = checksum + 1",
        "checksum = checksum - 1",
        "kind = 'metric'",
    ],
)
def test_a_record_that_is_not_as_it_was_written_is_set_aside(outbox, damage):
    outbox.append("metrics", metrics={"a": 1.0}, step=1, timestamp=1)
    outbox.append("finish", status="FINISHED", timestamp=2)
    with sqlite3.connect(outbox.directory / "outbox.sqlite") as tables:
        tables.execute(f"UPDATE records SET {damage} WHERE kind = 'metrics'")
    assert kinds(outbox) == ["run", "finish"]
    (told,) = outbox.refused
    assert told.endswith(": it is damaged on disk")


def test_what_arrives_in_the_end_is_refused_no_more(outbox):
    outbox.set_aside(0, "no")
    outbox.try_again()
    assert (outbox.refused, outbox.pending) == ([], 1)
    outbox.mark_delivered(0)
    assert outbox._query("SELECT state, reason FROM records") == [(1, None)]


def test_an_outbox_that_was_closed_tells_what_it_left_and_takes_nothing(outbox):
    outbox.append("tags", tags={})
    assert (outbox.close(), outbox.close(), outbox.waiting) == (2, 2, 2)
    with pytest.raises(OSError, match="one was closed"):
        outbox.append("tags", tags={})


def test_one_that_cannot_be_read_at_its_end_is_kept(outbox, monkeypatch):
    outbox.mark_delivered(0)

    def fail(which):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_count", fail)
        assert outbox.close() == 1
    assert outbox.directory.exists()


def test_one_that_somebody_else_has_removed_is_closed_as_well(outbox):
    outbox.mark_delivered(0)
    shutil.rmtree(outbox.directory)
    assert outbox.close() == 0


def test_one_that_was_delivered_while_it_was_opened_is_gone(outbox, monkeypatch):
    outbox.close()
    real = locks.take

    def late(path):
        lock = real(path)
        (path.parent / "outbox.sqlite").unlink()
        return lock

    monkeypatch.setattr(locks, "take", late)
    with pytest.raises(TrackingError, match="is gone: another process has delivered or removed it"):
        Outbox(outbox.directory)
    assert not outbox.directory.exists()


def test_an_error_while_it_is_opened_leaves_it_to_others(outbox, monkeypatch):
    outbox.close()
    with monkeypatch.context() as patch:
        patch.setattr(log.database, "SCHEMA", "no statement")
        with pytest.raises(
            TrackingError, match=r"one cannot be read and written \(near .* make room, put it back from"
        ):
            Outbox(outbox.directory)
    Outbox(outbox.directory).close()


def test_two_threads_may_use_it(outbox):
    found = []
    thread = threading.Thread(target=lambda: found.extend(kinds(outbox)))
    thread.start()
    thread.join()
    outbox.append("tags", tags={})
    assert (found, kinds(outbox)) == (["run"], ["run", "tags"])


def test_a_lock_that_another_has_is_not_taken_and_is_free_after(tmp_path):
    held = locks.take(tmp_path / "lock")
    assert locks.take(tmp_path / "lock") is None
    held.release()
    again = locks.take(tmp_path / "lock")
    assert again is not None
    again.release()
    assert not locks.is_locked(tmp_path / "lock")
