"""An outbox whose process is interrupted, killed, or short of room while it writes."""

import os
import random
import resource
import signal
import time

import forked
import pytest
from outboxes import all_of
from support import RUN

from cifar_mlflow.tracking.outbox.log import Outbox


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
