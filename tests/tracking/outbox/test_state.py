"""Outboxes looked at from outside: what is told of each, whatever it looks like."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import RUN, write_old

from cifar_mlflow.tracking.outbox import database, locks, log, state
from cifar_mlflow.tracking.outbox.log import Outbox


@pytest.fixture
def place(tmp_path):
    return tmp_path / "spool" / "one"


@pytest.fixture
def outbox(place, monkeypatch):
    """Of three records, written at 1000.5, 1001.5 and 1002.5 seconds."""
    seconds = iter([1000.5, 1001.5, 1002.5])
    opened = Outbox(place, new=True)
    with monkeypatch.context() as patch:
        patch.setattr(log, "time", SimpleNamespace(time=lambda: next(seconds)))
        opened.append("run", **RUN)
        opened.append("tags", tags={"a": "b"})
        opened.append("files")
    yield opened
    opened.close()


def test_all_is_told(outbox, place):
    outbox.note("run_id", "0" * 32)
    outbox.note("store", "there")
    outbox.mark_delivered(0)
    outbox.set_aside(2, "no")
    assert state.look(place) == state.Look(
        place, "n", {"kind": "single"}, "0" * 32, "there", waiting=2, refused=("files: no",), since=1001.5
    )
    assert state.look(place).busy
    outbox.close()
    assert not state.look(place).busy


def test_where_nothing_waits_nothing_has_waited(outbox, place):
    outbox.mark_delivered(2)
    seen = state.look(place)
    assert (seen.waiting, seen.since, seen.refused, seen.empty) == (0, 0.0, (), False)


def test_what_waits_was_not_written_in_the_future(outbox, place, monkeypatch):
    """The clock was set back."""
    monkeypatch.setattr(state.time, "time", lambda: 900.0)
    assert state.look(place).since == 900.0


def begin(place):
    """As a process leaves it that is killed before it has written anything."""
    Outbox(place, new=True)._give_free()


def test_one_without_a_record_is_empty(place):
    begin(place)
    seen = state.look(place)
    assert (seen.name, seen.empty, seen.waiting, seen.fault) == ("one", True, 0, None)


def test_one_whose_process_was_killed_before_its_tables_were_made_is_empty(place):
    place.mkdir(parents=True)
    (place / database.NAME).touch()
    assert state.look(place) == state.Look(place, "one", empty=True)


def test_one_of_which_only_damaged_records_are_left_is_not_empty(place):
    write_old(place, [b"damage\n"])
    assert (state.look(place).damaged, state.look(place).empty) == (1, False)


@pytest.mark.parametrize("statement", ["DROP TABLE records", "INSERT INTO about VALUES ('damaged', 'some')"])
def test_what_cannot_be_read_is_told(outbox, place, statement):
    outbox._query(statement)
    seen = state.look(place)
    assert seen.fault
    assert (seen.name, seen.waiting, seen.empty) == ("one", 0, False)


def test_what_goes_while_it_is_looked_at_is_told(place):
    assert "unable to open database file" in state.look(place).fault


def test_a_lock_that_goes_while_it_is_looked_at_is_nobodys(place, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert not locks.is_locked(place / "lock")


def test_size_is_that_of_all_files(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d").write_bytes(b"345")
    assert (state.size_of(tmp_path), state.size_of(tmp_path / "a"), state.size_of(tmp_path / "none")) == (5, 2, 0)


def test_remains_are_what_holds_nothing(outbox, tmp_path):
    spool = tmp_path / "spool"
    begin(spool / "begun")
    (spool / "another").mkdir()
    (spool / "a file").touch()
    assert state.remains(spool) == [spool / "another", spool / "begun"]
    assert sorted(log.outboxes(spool)) == [spool / "begun", spool / "one"]


def test_outboxes_are_in_the_order_of_their_age(tmp_path):
    for age, name in enumerate(["c", "a", "b"]):
        begin(tmp_path / name)
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    assert [path.name for path in log.outboxes(tmp_path)] == ["c", "a", "b"]
