"""Outboxes, of today's format and the old one, with anything in them."""

import contextlib
import json
import shutil
import zlib

import pytest
from fuzzing import ANYTHING, QUICK, SETTINGS, THOROUGH, damaged, fuzz, only_our_errors
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TINY_TRAINING, run_here, write_old

from cifar_mlflow.tracking.outbox import state
from cifar_mlflow.tracking.outbox.log import Outbox


def line(values):
    text = json.dumps(values).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


RUN = {"kind": "run", "experiment": "e", "name": "n", "tags": {"kind": "single"}, "timestamp": 1_790_000_000_000}
RECORDS = [
    RUN,
    {"kind": "parameters", "parameters": {"epochs": "3"}},
    {"kind": "metrics", "metrics": {"val_accuracy": 1.5}, "step": 1, "timestamp": 1_790_000_000_001},
    {"kind": "tags", "tags": {"a": "b"}},
    {"kind": "files"},
    {"kind": "model", "metrics": {}, "timestamp": 1_790_000_000_002},
    {"kind": "finish", "status": "FINISHED", "timestamp": 1_790_000_000_003},
]
LOG = b"".join(map(line, RECORDS))
# Lines whose checksum is right, and whose content nobody here has written.
FORGED = st.one_of(ANYTHING, st.dictionaries(st.sampled_from(["kind", "tags", "metrics", "step"]), ANYTHING)).map(
    lambda values: line(json.loads(json.dumps(values, default=str, skipkeys=True)))
)
LOGS = st.one_of(damaged([LOG]), st.lists(FORGED | st.just(line(RUN)), max_size=4).map(b"".join))


@fuzz(
    log=LOGS,
    delivered=st.none() | st.binary(max_size=6) | st.integers(-3, 2**80).map(lambda number: b"%d" % number),
    run_id=st.none() | st.binary(max_size=40) | st.just(b"0" * 32),
)
def test_outboxes_of_the_old_format(work, log, delivered, run_id):
    shutil.rmtree(work / "spool", ignore_errors=True)
    write_old(work / "spool" / "one", [log], delivered, run_id)
    look = state.look(work / "spool" / "one")
    assert look.fault is None
    assert state.remains(work / "spool") in ([], [work / "spool" / "one"])
    with only_our_errors():
        opened = Outbox(work / "spool" / "one")
        # What a look tells is what is then there, and nothing of what was written is lost or made up.
        assert (opened.waiting, opened.run_id, opened.noted("damaged")) == (
            look.waiting,
            look.run_id,
            str(look.damaged),
        )
        beside = work / "spool" / "one.damaged"
        assert not look.damaged or log.endswith(beside.read_bytes())
        opened.append("tags", tags={})
        assert use(opened)[-1].values == {"tags": {}}
        opened.close()


def use(opened):
    """All that can be read of an open outbox; the records that are to be tried."""
    opened.first()
    found, after = [], -1
    while record := opened.next(after):
        found.append(record)
        after = record.number
    return found


@pytest.fixture(scope="session")
def outbox_file(tmp_path_factory):
    """The database of an outbox with a record of each kind."""
    directory = tmp_path_factory.mktemp("outbox") / "one"
    opened = Outbox(directory, new=True)
    for values in RECORDS:
        opened.append(values["kind"], **{name: value for name, value in values.items() if name != "kind"})
    opened.note("run_id", "0" * 32)
    opened.close()
    return (directory / "outbox.sqlite").read_bytes()


@pytest.mark.parametrize("examples", [QUICK // 4, pytest.param(THOROUGH, marks=pytest.mark.long)])
def test_outboxes(work, outbox_file, examples):
    @settings(SETTINGS, max_examples=examples)
    @given(content=damaged([outbox_file]))
    def check(content):
        place = work / "spool" / "one"
        shutil.rmtree(work / "spool", ignore_errors=True)
        place.mkdir(parents=True)
        (place / "outbox.sqlite").write_bytes(content)
        look = state.look(place)
        assert isinstance(look.name, str)
        assert state.remains(work / "spool") in ([], [place])
        with only_our_errors(), contextlib.suppress(OSError):
            opened = Outbox(place)
            try:
                assert [record.kind for record in use(opened)] == [
                    kind for kind in [values["kind"] for values in RECORDS] if kind in {r.kind for r in use(opened)}
                ]
            finally:
                opened.close()

    check()


@settings(SETTINGS, max_examples=8, deadline=None)
@given(log=damaged([LOG]), delivered=st.none() | st.binary(max_size=3))
def test_outboxes_are_synced_or_told_of(cifar, work, log, delivered):
    parent = work.parent / "state" / "spool"
    shutil.rmtree(parent, ignore_errors=True)
    write_old(parent / "one", [log], delivered)
    for words in (("doctor", "--format", "json"), ("sync",), ("doctor", "--fix", "--format", "json")):
        outcome = run_here(*words)
        assert outcome.code in (0, 4, 9), outcome.output
        assert "Traceback" not in outcome.output
        assert "should not have happened" not in outcome.output
    assert not (parent / "one").exists() or outcome.code == 9


def test_an_old_outbox_of_a_run_that_the_store_made_finds_it_again_without_its_note(cifar, work, client, runs, tiny):
    """The file that notes the run's id is damaged: no second run is made."""
    run = client().create_run("0", tags={"kind": "single"}, run_name="n")
    records = [{name: value for name, value in RUN.items() if name != "timestamp"}, RECORDS[2], RECORDS[6]]
    place = work.parent / "state" / "spool" / run.info.run_id
    write_old(place, list(map(line, records)), b"\xff", b"\xfe\xfe")
    outcome = cifar("sync")
    assert outcome.code == 0, outcome.output
    assert [(found.info.run_id, found.info.status) for found in runs()] == [(run.info.run_id, "FINISHED")]
    assert client().get_metric_history(run.info.run_id, "val_accuracy")[0].value == 1.5


def test_files_of_an_outbox_that_are_damaged_are_told_and_the_rest_arrives(cifar, work, tiny, runs):
    assert cifar("train", "--dataset", tiny, *TINY_TRAINING, "--offline").code == 0
    for file in (work.parent / "state").rglob("MLmodel"):
        file.write_bytes(b"\xff: [")
    outcome = cifar("sync")
    assert outcome.code == 4
    assert outcome.stderr.count("are damaged") == 3  # each, and the first once more as the error
    (run,) = runs()
    assert (run.info.status, "val_accuracy" in run.data.metrics) == ("FINISHED", True)
