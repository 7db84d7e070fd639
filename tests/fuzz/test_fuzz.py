"""Whatever stands in a file, what comes of it is a result or an error of ours: no traceback, no hang, no stray file."""

import contextlib
import io
import json
import shutil
import zipfile
import zlib

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import TINY_TRAINING, run_here, tiny_arrays, write_old

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import load_spec, parse_spec
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.errors import CifarMlflowError
from cifar_mlflow.learning.data import datasets, image_files
from cifar_mlflow.tracking.outbox import state
from cifar_mlflow.tracking.outbox.log import Outbox

QUICK, THOROUGH = 200, 4000  # of each of the six: 24,000 in all
SETTINGS = settings(deadline=20_000, suppress_health_check=list(HealthCheck), database=None)


def fuzz(**strategies):
    """The test with a few hundred examples, and, marked long, with thousands; no file may appear outside `work`."""

    def decorate(test):
        @pytest.mark.parametrize("examples", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.long)])
        def many_times(examples, work):
            before = set(work.parent.rglob("*"))
            checks = settings(SETTINGS, max_examples=examples)
            checks(given(work=st.just(work), **strategies)(test))()
            strays = set(work.parent.rglob("*")) - set(work.rglob("*")) - before
            assert strays == set()

        return many_times

    return decorate


@contextlib.contextmanager
def only_our_errors():
    with contextlib.suppress(CifarMlflowError):
        yield


# ------------------------------------------------------------------------------------------ configurations and specs

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.binary(max_size=4),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from([*TrainingConfig.model_fields, "colour", "", "config", "threads"])
VALUES = ANYTHING | st.sampled_from(
    ["auto", "cifar10", "x.npz", "sgd", "15,25", "1e9", "٣", "nan", "inf", "-0", "0x10"]
)
CONFIGURATIONS = st.dictionaries(FIELDS | st.text(max_size=6), VALUES, max_size=6)
ENTRIES = st.one_of(
    ANYTHING,
    st.lists(SCALARS, max_size=5),
    st.fixed_dictionaries(
        {}, optional={"low": VALUES, "high": VALUES, "log": VALUES, "step": VALUES, "values": VALUES, "when": ANYTHING}
    ),
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("s") | VALUES,
        "base": CONFIGURATIONS | ANYTHING,
        "space": st.dictionaries(FIELDS, ENTRIES, max_size=4) | ANYTHING,
        "sampler": st.sampled_from(["grid", "random", "tpe"]) | VALUES,
        "trials": st.integers(0, 5) | VALUES,
        "repeats": st.integers(0, 5) | VALUES,
        "pruner": st.just("successive_halving") | VALUES,
        "min_epochs": st.integers(0, 5) | VALUES,
        "objective": st.just("val_loss") | VALUES,
        "workers": VALUES,
        "threads": VALUES,
        "budget": ANYTHING,
        "experiment": VALUES,
        "log_models": VALUES,
        "more": VALUES,
    },
)


@fuzz(values=CONFIGURATIONS)
def test_configurations(work, values):
    with only_our_errors():
        config = resolve(values)
        assert resolve(config.as_options()) == config


@fuzz(values=SPECS)
def test_specs(work, values):
    with only_our_errors():
        spec = parse_spec(values, work)
        assert parse_spec(yaml.safe_load(spec.as_yaml()), work).as_data() == spec.as_data()


YAML_WORDS = [b"a: ", b"- ", b"{", b"}", b"[", b"&a ", b"*a", b"!!python/object/apply:os.system ", b"<<: ", b"'", b'"']
YAML_WORDS += [
    b"\n",
    b"  ",
    b"? ",
    b"| ",
    b"%YAML",
    b"--- ",
    b"\x00",
    b"\xff",
    b"\t",
    b"epochs: 3",
    b"2026-02-31",
    b".inf",
]


@fuzz(parts=st.lists(st.sampled_from(YAML_WORDS) | st.binary(max_size=6), max_size=14))
def test_yaml_bytes(work, parts):
    (work / "x.yaml").write_bytes(b"".join(parts))
    with only_our_errors():
        resolve(read_yaml(work / "x.yaml"))
    with only_our_errors():
        load_spec(work / "x.yaml")


# ------------------------------------------------------------------------------------------------------------- files


def saved(arrays, compressed):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


ARRAYS = tiny_arrays(train=12, test=6)
NPZ = [saved(ARRAYS, True), saved(ARRAYS, False), saved({**ARRAYS, "classes": np.array(["a", "b", "c"])}, True)]


@st.composite
def damaged(draw, originals):
    """One of the originals, with some bytes changed, taken out, put in or cut off; or anything."""
    content = bytearray(draw(st.sampled_from(originals) if draw(st.integers(0, 9)) else st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "out", "in"]))
        if kind == "change":
            content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "out":
            del content[place : place + draw(st.integers(1, 20))]
        else:
            content[place:place] = draw(st.binary(max_size=20))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content)


def npz_of(members):
    """An .npz whose members have hostile headers."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, header, content in members:
            text = header.encode() + b" " * (63 - (len(header) + 10) % 64) + b"\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content)
    return file.getvalue()


HEADERS = st.builds(
    "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format,
    st.sampled_from(["'|u1'", "'<i8'", "'|O'", "'<f8'", "'<U999999'", "[('a', 'u1')]", "'|V8'", "'<M8[D]'", "5"]),
    st.sampled_from(["True", "False", "0", "[]"]),
    st.sampled_from(
        ["(12, 8, 8, 3)", "(12,)", "()", "(-1,)", "(2**60,)", "(4000000000000,)", "(0, 8, 8, 3)", "'x'", "(1.5,)"]
    ),
)
HOSTILE_NPZ = st.lists(
    st.tuples(st.sampled_from(["x_train", "y_train", "x_test", "y_test", "classes"]), HEADERS, st.binary(max_size=64)),
    min_size=4,
    max_size=5,
    unique_by=lambda member: member[0],
).map(npz_of)


@fuzz(content=damaged(NPZ) | HOSTILE_NPZ)
def test_npz_files(work, content):
    (work / "x.npz").write_bytes(content)
    with only_our_errors():
        datasets.load(TrainingConfig(dataset=str(work / "x.npz")))
    assert list(image_files.read(work / "x.npz", (8, 8, 3)))


def painted(form):
    file = io.BytesIO()
    Image.fromarray(ARRAYS["x_train"][0]).save(file, form)
    return file.getvalue()


PICTURES = [painted(form) for form in image_files.FORMATS]


@fuzz(content=damaged(PICTURES), suffix=st.sampled_from(image_files.SUFFIXES))
def test_image_files(work, content, suffix):
    (work / f"x{suffix}").write_bytes(content)
    (entry,) = image_files.read(work / f"x{suffix}", (8, 8, 3))
    assert isinstance(entry, image_files.Skipped) or entry.pixels.shape == (8, 8, 3)
    (work / f"x{suffix}").unlink()


# ------------------------------------------------------------------------------------------------------------ outboxes


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
