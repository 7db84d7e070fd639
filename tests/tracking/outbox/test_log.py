"""The outbox on disk: what it took is there, whole and once, whatever comes between."""

import os
import sqlite3
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from outboxes import all_of
from support import RUN

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import locks, log, state
from cifar_mlflow.tracking.outbox.log import Busy, Outbox


def test_what_was_written_is_there_in_order_until_all_has_arrived(outbox, place):
    for step in range(3):
        outbox.append("metrics", metrics={"a": step / 2}, step=step, timestamp=step)
    assert [record.values["step"] for record in all_of(outbox)[1:]] == [0, 1, 2]
    outbox.mark_delivered(all_of(outbox)[1].number)
    assert (outbox.waiting, outbox.pending, len(all_of(outbox))) == (2, 2, 2)
    assert outbox.close() == 2
    again = Outbox(place)
    assert [record.values["step"] for record in all_of(again)] == [1, 2]
    again.mark_delivered(all_of(again)[-1].number)
    assert again.close() == again.waiting == 0
    assert not place.exists()


def test_what_is_refused_is_kept_and_the_rest_goes_on(outbox, place):
    for step in range(3):
        outbox.append("metrics", metrics={}, step=step, timestamp=step)
    records = all_of(outbox)
    outbox.mark_delivered(records[0].number)
    outbox.set_aside(records[1].number, "no")
    outbox.mark_delivered(records[3].number)
    assert (outbox.pending, outbox.waiting, outbox.refused) == (0, 1, ["metrics: no"])
    assert outbox.close() == 1
    assert state.look(place).refused == ("metrics: no",)
    again = Outbox(place)
    again.try_again()
    assert [record.values["step"] for record in all_of(again)] == [0]
    again.close()


def test_begun_anew_all_waits_again_with_its_files(outbox):
    (outbox.next_payload() / "a").write_bytes(b"1")
    outbox.append("files")
    outbox.note("run_id", "0" * 32)
    outbox.mark_delivered(all_of(outbox)[-1].number)
    outbox.begin_anew(store="there")
    assert [record.kind for record in all_of(outbox)] == ["run", "files"]
    assert (outbox.payload(all_of(outbox)[1].number) / "a").read_bytes() == b"1"
    assert (outbox.run_id, outbox.noted("store")) == (None, "there")


def test_one_that_is_gone_is_not_made_again(place):
    with pytest.raises(TrackingError, match="is gone"):
        Outbox(place)
    assert not place.exists()


def test_a_state_directory_that_cannot_be_written():
    with pytest.raises(TrackingError, match="CIFAR_MLFLOW_STATE"):
        Outbox(Path("/proc/nowhere/one"), new=True)


# --------------------------------------------------------------------------------------------------- its one process


def test_looking_does_not_get_in_the_way(place):
    """Somebody looks all the time; it is taken all the same, and two who look do not see each other."""
    Outbox(place, new=True).append("run", **RUN)
    seen, until = [], time.monotonic() + 1.0

    def look():
        while time.monotonic() < until:
            seen.append(state.is_busy(place))

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    assert set(seen) == {False}
    until = time.monotonic() + 1.0
    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    while time.monotonic() < until - 0.2:
        opened = Outbox(place)
        assert state.is_busy(place)
        opened.close()
    for looker in lookers:
        looker.join()


def test_another_cannot_open_it(outbox, place):
    with pytest.raises(Busy, match="in use by another process"):
        Outbox(place)
    assert state.is_busy(place)


def test_where_there_is_no_fcntl(place, monkeypatch):
    opened = Outbox(place, new=True)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert locks.is_locked(place / "lock")
    opened.append("run", **RUN)
    opened.close()
    assert not locks.is_locked(place / "lock")


def test_where_directories_cannot_be_synced(tmp_path, monkeypatch):
    """Windows opens no directory, and removes no file that is locked."""

    def no_directory(path, flags, *more, **options):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return os.open(path, flags, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(log, "os", SimpleNamespace(**vars(os) | {"open": no_directory}))
        patch.setattr(log, "WINDOWS", True)
        opened = Outbox(tmp_path / "one", new=True)
        (opened.next_payload() / "a").write_bytes(b"1")
        opened.append("files")
        opened.mark_delivered(opened.next(-1).number)
        opened.close()
    assert not (tmp_path / "one").exists()


# ------------------------------------------------------------------------------------------------------------ speed


def test_a_record_is_read_in_the_same_time_however_many_there_are(outbox):
    def seconds():
        """The shortest of many looks, which no other process has disturbed."""
        looks = []
        for _ in range(100):
            begun = time.perf_counter()
            outbox.next(-1)
            looks.append(time.perf_counter() - begun)
        return min(looks)

    few = seconds()
    text = '{"metrics": {}, "step": 1, "timestamp": 1}'
    row = (1, "metrics", text, log.database.checksum(text))
    with sqlite3.connect(outbox.directory / "outbox.sqlite") as tables:
        tables.executemany(log.database.INSERT, [(number, *row, 0) for number in range(1, 10_000)])
    assert outbox.waiting == 10_000
    assert seconds() < 5 * few
    outbox.mark_delivered(9_990)
    assert outbox.waiting == 9
    assert seconds() < 5 * few


# ------------------------------------------------------------------------------------------------------ what is damaged


def test_a_record_whose_bits_have_changed_is_set_aside(outbox):
    outbox.append("metrics", metrics={"a": 1.0}, step=1, timestamp=1)
    outbox.append("finish", status="FINISHED", timestamp=2)
    with sqlite3.connect(outbox.directory / "outbox.sqlite") as tables:
        tables.execute("UPDATE records SET content = replace(content, '1.0', '7.0') WHERE kind = 'metrics'")
    assert [record.kind for record in all_of(outbox)] == ["run", "finish"]
    assert outbox.refused == ["metrics: it is damaged on disk"]


def test_a_database_that_is_none_is_told_of_and_left(outbox, place):
    outbox.close()
    (place / "outbox.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(TrackingError, match="not a database"):
        Outbox(place)
    assert "not a database" in state.look(place).fault
    assert not state.is_busy(place)
    assert (place / "outbox.sqlite").read_bytes().startswith(b"no database")
