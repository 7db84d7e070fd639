"""Names and texts with everything that a shell, SQL, a file system or a terminal could trip over.

They come back as they were given, or are refused by name in one message; nothing of them is ever executed.
"""

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from support import TINY_TRAINING, move_store

from cifar_mlflow.learning.data import cifar10

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cifar_mlflow"
USAGE, MODEL = 2, 6
HARMLESS = [
    'it\'s "quoted"',
    "$(touch owned) `touch owned`; touch owned & touch owned | touch owned > owned",
    "'; DROP TABLE runs; --",
    "%s %(x)s {0} {run_id} \\n \\",
    "<b>bold</b> & [link](http://x)",
    "katze 🐱 ∑ שלום ﷽",
    "trailing space ",
    "x" * 250,
]
NAMES = [" ".join(HARMLESS[:6]), *HARMLESS[6:]]  # each training takes a second
OF_FILES = [" ".join(name for name in HARMLESS[:6] if "/" not in name), "trailing space "]
REFUSED = {
    "two\nlines": "it contains '\\n', which is a control character",
    "nul\0inside": "it contains '\\x00', which is a control character",
    "bell\a": "it contains '\\x07', which is a control character",
    "\x1b[31mred": "it contains '\\x1b', which is a control character",
    "byte \udcff": "it contains '\\udcff', which is no valid Unicode",
    "x" * 5000: "it has 5,000 characters",
}


@pytest.fixture(autouse=True)
def nothing_is_executed(work):
    yield
    assert not list(work.parent.rglob("owned"))


@pytest.fixture
def refused(cifar, statuses):
    """Runs a command that must be refused as wrongly used: one short message, and nothing written."""

    def check(message, *words):
        outcome = cifar(*words)
        assert outcome.code == USAGE, outcome.output
        assert message in outcome.stderr
        assert "Traceback" not in outcome.output
        assert len(outcome.stderr) < 600
        assert statuses() == []

    return check


def names(client, runs):
    """Experiment and name of every run."""
    by_id = {found.experiment_id: found.name for found in client().search_experiments()}
    return {(by_id[run.info.experiment_id], run.info.run_name) for run in runs()}


def test_names_come_back_as_they_were_given(cifar, tiny_training, client, runs):
    for name in NAMES:
        outcome = cifar("train", *tiny_training, "--epochs", 1, "--experiment", name, "--run-name", name)
        assert outcome.code == 0, outcome.output
    assert names(client, runs) == {(name, name) for name in NAMES}


def test_names_come_back_from_the_spool(cifar, tiny_training, client, runs):
    for name in NAMES:
        words = ("--experiment", name, "--run-name", name, "--offline")
        assert cifar("train", *tiny_training, "--epochs", 1, *words).code == 0
    assert cifar("doctor", "--fix").code == 0
    assert names(client, runs) == {(name, name) for name in NAMES}


@pytest.mark.parametrize("option", ["--run-name", "--experiment", "--dataset", "--data-dir"])
@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_train_refuses_what_is_no_name(refused, tiny_training, option, text):
    if option == "--dataset" and len(text) == 5000:
        text += ".npz"
    words = [word for word in tiny_training if option != "--dataset"]
    refused("" if option in ("--dataset", "--data-dir") else REFUSED[text], "train", *words, option, text)


@pytest.mark.parametrize("text", [text for text in REFUSED if "\n" not in text], ids=ascii)
@pytest.mark.parametrize(
    "words", [("promote", "0" * 32, "--name"), ("promote", "0" * 32, "--force"), ("rollback", "tiny", "--reason")]
)
def test_the_registry_refuses_what_is_no_text(refused, words, text):
    refused(REFUSED[text], *words, text)


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
@pytest.mark.parametrize("key", ["experiment", "name"])
def test_a_sweep_refuses_what_is_no_name(refused, work, key, text):
    spec = {"name": "s", "base": {"dataset": "digits"}, "space": {"activation": ["relu"]}, key: text}
    content = yaml.safe_dump(spec).encode("utf-8", "surrogatepass")
    (work / "sweep.yaml").write_bytes(content)
    refused("sweep.yaml", "sweep", "sweep.yaml")


@pytest.mark.parametrize("text", [*HARMLESS, *REFUSED], ids=ascii)
@pytest.mark.parametrize("command", [("evaluate",), ("compare",), ("history",), ("rollback",), ("reproduce",)])
def test_what_names_nothing_is_told_so(cifar, statuses, command, text):
    outcome = cifar(*command, text)
    assert outcome.code in (USAGE, 4, MODEL), outcome.output
    assert "Traceback" not in outcome.output
    assert "should not have happened" not in outcome.output
    assert statuses() == []


@pytest.mark.parametrize("name", OF_FILES, ids=ascii)
def test_a_dataset_of_any_name_is_trained_on_evaluated_and_promoted(cifar, work, tiny, smoke_here, name):
    place = work / name
    place.mkdir()
    shutil.copy(tiny, place / f"{name}.npz")
    trained = cifar("train", "--dataset", place / f"{name}.npz", *TINY_TRAINING)
    assert trained.code == 0, trained.output
    run_id = trained.stdout.split()[1]
    assert cifar("evaluate", run_id).code == 0
    promoted = cifar("promote", run_id, "--min-accuracy", 100, "--force", name)
    assert promoted.code == 0, promoted.output
    assert cifar("promote", run_id, "--weights", "best", "--force", name).code == 0
    told = cifar("rollback", name, "--reason", name)
    assert told.code == 0, told.output
    history = cifar("history", name, "--format", "json")
    assert [move["reason"] for move in json.loads(history.stdout)["moves"]][-1] == name
    doctor = cifar("doctor")
    assert doctor.code == 0, doctor.output


def test_mlflow_run_hands_a_hostile_path_on_as_it_is(work, tiny, empty_store, trained_once):
    name = 'it\'s $(touch owned) `touch owned` "🐱" ; touch owned'
    move_store(trained_once[0].parent, work)
    (work / name).mkdir()
    shutil.copy(tiny, work / name / "tiny.npz")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    options = {"dataset": work / name / "tiny.npz", "epochs": 1, "batch_size": 8, "scheduler": "none"}
    words = [word for key, value in options.items() for word in ("-P", f"{key}={value}")]
    done = subprocess.run(
        [Path(sys.executable).parent / "mlflow", "run", ROOT, "--env-manager", "local", "--run-name", name, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "done: tiny" in done.stdout
    assert not list(ROOT.glob("owned"))


# ------------------------------------------------------------------------------------------------- files from others


def archive_with(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        member("../owned"),
        member("/tmp/owned-by-an-archive"),
        member("cifar-10-batches-py/../../owned"),
        member("cifar-10-batches-py/data_batch_1", tarfile.SYMTYPE, "/etc/passwd"),
        member("cifar-10-batches-py/data_batch_1", tarfile.LNKTYPE, "../../etc/passwd"),
        member("cifar-10-batches-py/data_batch_1", tarfile.CHRTYPE),
        member("cifar-10-batches-py/data_batch_1", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type!r}",
)
def test_nothing_of_a_hostile_archive_is_unpacked_or_followed(cifar, work, hostile):
    archive_with(work / cifar10.ARCHIVE, (hostile, b"" if hostile.type != tarfile.REGTYPE else b"owned"))
    before = sorted(work.parent.rglob("*"))
    outcome = cifar("train", "--data-dir", work)
    assert outcome.code == 3
    assert "data_batch_1 is missing" in outcome.stderr
    assert sorted(path for path in work.parent.rglob("*") if "state" not in str(path)) == before
    assert not Path("/tmp/owned-by-an-archive").exists()


def test_an_archive_that_swells_is_not_read_whole(cifar, work):
    """A member that claims, and has, far more than the official file is not even looked into."""
    info = member("cifar-10-batches-py/data_batch_1")
    archive_with(work / cifar10.ARCHIVE, (info, bytes(200_000_000)))
    assert (work / cifar10.ARCHIVE).stat().st_size < 1_000_000
    outcome = cifar("train", "--data-dir", work)
    assert outcome.code == 3
    assert "data_batch_1" in outcome.stderr


BOMB = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)
])  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        f"{BOMB}\nepochs: *a11",
        "a: &a [*a]",
        "base: &a {b: *a}",
        "? {a: b}\n: c",
        "? [a]\n: c",
        "[" * 5000,
        "!!python/object/apply:os.system ['touch owned']",
        "epochs: !!python/name:os.system",
    ],
    ids=lambda text: text[-30:],
)
@pytest.mark.parametrize("command", [("train", "--config"), ("sweep",)])
def test_a_yaml_file_can_neither_run_anything_nor_unfold_without_end(refused, work, command, content):
    (work / "x.yaml").write_text(content)
    refused("x.yaml", *command, "x.yaml")


FORBIDDEN = {
    ("pickle", "load"), ("pickle", "loads"), ("pickle", "Unpickler"), ("joblib", "load"), ("dill", "loads"),
    ("marshal", "loads"), ("shelve", "open"), ("cloudpickle", "load"), ("yaml", "load"), ("yaml", "unsafe_load"),
    ("yaml", "full_load"), ("os", "system"), ("os", "popen"), ("tarfile", "extractall"), ("torch", "load"),
}  # fmt: skip
BARE = {"eval", "exec", "compile", "__import__"}
# Bytes whose digest is that of the official file; a loader that is PyYAML's safe one.
ALLOWED = {("learning/data/cifar10.py", "pickle.loads"), ("config/yaml_files.py", "yaml.load")}


def unsafe_calls(path):
    """Calls that would run what they read, in a file of the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        function = node.func
        if isinstance(function, ast.Name) and function.id in BARE:
            yield function.id
        if isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            safe = owner == "torch" and getattr(keywords.get("weights_only"), "value", None) is True
            if ((owner, function.attr) in FORBIDDEN and not safe) or function.attr in ("extractall", "extract"):
                yield f"{owner}.{function.attr}"
            if (owner, function.attr) == ("np", "load") and getattr(keywords.get("allow_pickle"), "value", 1):
                yield "np.load"
        if getattr(keywords.get("shell"), "value", False):
            yield "shell=True"


def test_nothing_that_is_read_is_run():
    found = {(str(path.relative_to(PACKAGE)), call) for path in PACKAGE.rglob("*.py") for call in unsafe_calls(path)}
    assert found == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "pickle.load(file)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "archive.extractall()",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(work, code):
    (work / "module.py").write_text(code)
    assert list(unsafe_calls(work / "module.py"))
