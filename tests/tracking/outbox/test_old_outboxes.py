"""Outboxes of the old format are taken over."""

import shutil

from outboxes import all_of
from support import RUN, line, write_old

from cifar_mlflow.tracking.outbox import state
from cifar_mlflow.tracking.outbox.log import Outbox

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
