"""The outbox on disk: what it took is there, whole and once, whatever comes between."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
from support import RUN, line, write_old

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import locks, log, state
from cifar_mlflow.tracking.outbox.log import Busy, Outbox


@pytest.fixture
def place(tmp_path):
    return tmp_path / "spool" / "one"


@pytest.fixture
def outbox(place):
    opened = Outbox(place, new=True)
    opened.append("run", **RUN)
    yield opened
    opened.close()


def all_of(outbox):
    """The values of all records that are to be tried, in order."""
    found, after = [], -1
    while record := outbox.next(after):
        found.append(record)
        after = record.number
    return found


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


# ---------------------------------------------------------------------------------------------------- interrupted


def write_on(place, limit, told):
    """Writes records of many sizes, and each one's number to `told`, until a write fails or a signal comes."""
    draw = random.Random(limit)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outbox = Outbox(place, new=True)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    step = 0
    try:
        while True:
            outbox.append("metrics", metrics={"a" * draw.randrange(1, 3000): 1.0}, step=step, timestamp=1)
            os.write(file, b"%d\n" % step)
            step += 1
    except OSError:
        # What comes after is written if there is room for it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        outbox.append("finish", status="FAILED", timestamp=2)
    except KeyboardInterrupt:
        outbox.append("finish", status="KILLED", timestamp=2)
    outbox.close()


def check_interrupted(directory, seed, kind):
    draw = random.Random(seed)
    place, told = directory / f"{kind}{seed}", directory / f"{kind}{seed}.told"
    process = forked.start_call(write_on, place, draw.randrange(30_000, 90_000) if kind == "partly" else 0, told)
    if kind != "partly":
        while not told.exists() or told.stat().st_size < draw.randrange(2, 30):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGINT if kind == "signal" else signal.SIGKILL)
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if kind == "killed" else 0)
    last = int(told.read_bytes().split()[-1])
    outbox = Outbox(place)
    records = all_of(outbox)
    ends = [record.values["status"] for record in records if record.kind == "finish"]
    assert ends == {"signal": ["KILLED"], "partly": ["FAILED"], "killed": []}[kind]
    steps = [record.values["step"] for record in records if record.kind == "metrics"]
    # A record whose write was interrupted may have been written; one that was reported has.
    assert steps in (list(range(last + 1)), list(range(last + 2)))
    outbox.close()


@pytest.mark.parametrize("kind", ["signal", "partly", "killed"])
@pytest.mark.parametrize("seed", range(2))
def test_interrupted_while_it_writes(tmp_path, seed, kind):
    check_interrupted(tmp_path, seed, kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["signal", "partly", "killed"])
@pytest.mark.parametrize("seed", range(2, 42))
def test_interrupted_while_it_writes_at_many_places(tmp_path, seed, kind):
    check_interrupted(tmp_path, seed, kind)


def test_a_full_disk_keeps_what_was_there(outbox, place):
    """Nothing more fits: the write fails, and the next one that has room goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((place / "outbox.sqlite").stat().st_size, hard))
    try:
        with pytest.raises(OSError, match=r"disk|full"):
            outbox.append("tags", tags={"a": "b" * 100_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    outbox.append("tags", tags={"a": "c"})
    assert [record.values.get("tags") for record in all_of(outbox)] == [RUN["tags"], {"a": "c"}]


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


# ---------------------------------------------------------------------------------------------------- the old format


LINES = [
    line("run", **RUN),
    line("parameters", parameters={"epochs": "3"}),
    line("metrics", metrics={"val_accuracy": 1.5}, step=1, timestamp=1_790_000_000_001),
    line("files"),
    line("finish", status="FINISHED", timestamp=1_790_000_000_003),
]


def test_an_old_one_is_taken_over(place):
    write_old(place, LINES, b"2", b"0" * 32)
    (place / "payload" / "3").mkdir()
    seen = state.look(place)
    assert (seen.name, seen.waiting, seen.run_id, seen.tags) == ("n", 3, "0" * 32, {"kind": "single"})
    opened = Outbox(place)
    assert [(record.number, record.kind) for record in all_of(opened)] == [(2, "metrics"), (3, "files"), (4, "finish")]
    opened.append("tags", tags={})
    assert (opened.run_id, all_of(opened)[-1].number) == ("0" * 32, 5)
    opened.close()
    assert not (place / "records.log").exists()
    assert state.look(place).waiting == 4


def test_an_old_one_that_is_damaged_in_the_middle(place):
    write_old(place, [*LINES[:2], b"damage\n", *LINES[3:], b"torn"])
    assert (state.look(place).waiting, state.look(place).damaged) == (2, 3)
    opened = Outbox(place)
    assert (opened.waiting, opened.noted("damaged")) == (2, "3")
    opened.close()
    assert place.with_name("one.damaged").read_bytes() == b"".join([b"damage\n", *LINES[3:], b"torn"])


def test_killed_while_an_old_one_was_taken_over(place):
    """The tables were filled, and the old files are still there."""
    write_old(place, LINES)
    shutil.copy(place / "records.log", place / "kept")
    opened = Outbox(place)
    opened.close()
    (place / "kept").replace(place / "records.log")
    again = Outbox(place)
    assert again.waiting == len(LINES)
    again.close()


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
