"""The doctor: each wreck is named with what to do, --fix repairs what it says, and the second look is clean."""

import http.server
import json
import os
import shutil
import socket
import sqlite3
import threading
import time
from pathlib import Path

import forked
import mlflow
import pytest
from support import RUN, TINY_TRAINING, QuietServer, line, move_store, write_old

from cifar_mlflow.learning.compiled import bindings
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.reading import leftovers
from cifar_mlflow.tracking.registry import aliases, lease, versions

NOT_IN_ORDER = 9
NO_PROCESS = 2**22 + 1  # more than Linux has
UNKNOWN = "0123456789abcdef" * 2


@pytest.fixture
def doctor(cifar, monkeypatch, work):
    """Runs the doctor; returns its exit code and its findings as text: severity, check, text, outcome."""
    monkeypatch.setenv("CIFAR_MLFLOW_STATE", str(work / "state"))
    monkeypatch.setenv("CIFAR_MLFLOW_DATA", "")

    def run(*words):
        outcome = cifar("doctor", "--format", "json", *words)
        assert "Traceback" not in outcome.output
        return outcome.code, json.loads(outcome.stdout)["findings"]

    return run


@pytest.fixture
def finished(work, doctor, trained_once, client):
    """A finished run in a store with files of its own."""
    move_store(trained_once[0].parent, work)
    experiment = client().get_experiment_by_name("tiny")
    (run,) = client().search_runs([experiment.experiment_id])
    return run


@pytest.fixture
def make_run(client):
    """Makes a RUNNING run with tags, as old as wanted; returns its id."""

    def make(tags, hours=1.0):
        begun = int(1000 * (time.time() - 3600 * hours))
        return client().create_run("0", begun, dict(tags), "forged").info.run_id

    return make


def dead(kind):
    return {"kind": kind, "host": socket.gethostname(), "process_id": str(NO_PROCESS), "process_started": "1.00"}


def told(findings, word):
    """The one finding that speaks of something."""
    (found,) = [each for each in findings if word in each["text"]]
    return found


def about(findings, *checks):
    return [each for each in findings if each["check"] in checks]


# --------------------------------------------------------------------------------------------- all that can happen


@pytest.fixture
def wrecks(work, finished, make_run, client, tiny):
    """Every wreck at once; the ids by which the doctor must name them."""
    found = {}
    experiment = finished.info.experiment_id
    training = ("train", "--dataset", tiny, *TINY_TRAINING)
    # The first is killed in the middle of its epochs, the second somewhere near its end.
    for name, number, epochs in (("killed early", 6, 100), ("killed at its end", 12, 3)):
        before = {run.info.run_id for run in client().search_runs([experiment])}
        assert forked.run(work, *training, "--epochs", epochs, kill_before_write=number).code == -9
        (run,) = [run for run in client().search_runs([experiment]) if run.info.run_id not in before]
        assert run.info.status == "RUNNING"
        found[name] = run.info.run_id
    assert forked.run(work, *training, "--offline", "--run-name", "an offline one").code == 0
    for kind in ("single", "trial", "sweep", "job"):
        found[kind] = make_run(dead(kind))
    found["elsewhere"] = make_run({**dead("single"), "host": "another-machine"}, hours=30)
    found["mlflow run"] = make_run({"mlflow.project.entryPoint": "main"})

    found["model"] = (
        client()
        .create_logged_model(experiment, "half", source_run_id=finished.info.run_id, tags={"weights": "best"})
        .model_id
    )
    store = tracking_store.connect()
    versions.ensure(store, "tiny")
    (last, best) = [f"models:/{output.model_id}" for output in finished.outputs.model_outputs]
    for uri in (last, best):
        version = versions.register(store, "tiny", uri, finished.info.run_id)
        aliases.move(store, "tiny", "champion", "promote", version)
    move = json.loads(client().get_registered_model("tiny").tags[f"{aliases.PREFIX}000002"])
    begun = {**move, "number": 3, "version": "1", "before": "2", "state": "intended"}
    client().set_registered_model_tag("tiny", f"{aliases.PREFIX}000003", json.dumps(begun))
    ticket = {"number": 1, "expires": time.time() + 60, **dead("job")}
    client().set_registered_model_tag("tiny", f"{lease.PREFIX}forged", json.dumps(ticket))

    state = work / "state"
    (state / "spool" / "empty" / "payload").mkdir(parents=True)
    # How far the killed ones had come with theirs, chance decides.
    shutil.rmtree(state / "checkpoints", ignore_errors=True)
    for name in (finished.info.run_id, found["killed early"], UNKNOWN):
        (state / "checkpoints" / name).mkdir(parents=True)
        (state / "checkpoints" / name / "a").write_bytes(bytes(1000))
    (state / "checkpoints" / found["killed early"] / ".b.part").write_bytes(b"half")
    cache = work.parent / "cache" / "cifar-mlflow"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "cifar-10-python.tar.gz.partial").write_bytes(b"half")
    return found


def test_everything_at_once(wrecks, doctor, finished, client, work):
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert told(about(findings, "runs"), wrecks["elsewhere"])["severity"] == "note"
    assert "set_terminated" in told(findings, wrecks["mlflow run"])["remedy"]
    fixable = [f for f in findings if f["fixable"]]
    for name in ("killed early", "killed at its end", "single", "trial", "sweep", "job"):
        assert told(about(fixable, "runs"), wrecks[name])
    assert told(about(fixable, "spools"), wrecks["killed early"])
    assert told(about(fixable, "spools"), "an offline one")["remedy"] == "cifar-mlflow sync"
    assert told(about(fixable, "spools"), "without any record")
    assert told(about(fixable, "models"), wrecks["model"])
    assert told(about(fixable, "aliases"), "promote of version 1 as champion")
    assert told(about(fixable, "aliases"), str(NO_PROCESS))
    assert told(about(fixable, "checkpoints"), finished.info.run_id)
    resumable = told(about(findings, "checkpoints"), wrecks["killed early"])
    assert resumable["remedy"] == f"cifar-mlflow train --resume {wrecks['killed early']}"
    assert not told(about(findings, "checkpoints"), UNKNOWN)["fixable"]
    assert len(about(fixable, "leftovers")) == 2
    # Nothing has been changed by looking.
    assert doctor() == (code, findings)

    code, repaired = doctor("--fix")
    assert [each["text"] for each in repaired if each["fixable"] and not each["fixed"]] == []
    assert code == NOT_IN_ORDER  # the run that `mlflow run` made cannot be proved dead
    for name in ("killed early", "single", "trial", "sweep", "job"):
        run = client().get_run(wrecks[name])
        assert (run.info.status, "doctor" in run.data.tags["failure"]) == ("KILLED", True)
    assert client().get_run(wrecks["elsewhere"]).info.status == "RUNNING"
    # Nothing was lost of what the killed processes had written.
    steps = [point.step for point in client().get_metric_history(wrecks["killed early"], "val_accuracy")]
    assert steps == list(range(1, len(steps) + 1))
    assert client().get_run(wrecks["killed at its end"]).info.status in ("KILLED", "FINISHED")
    (offline,) = client().search_runs(["1"], "run_name = 'an offline one' and status = 'FINISHED'")
    assert len(client().get_metric_history(offline.info.run_id, "val_accuracy")) == 3
    assert str(client().get_registered_model("tiny").aliases["champion"]) == "2"
    assert list((work / "state" / "spool").iterdir()) == []
    kept = {path.name for path in (work / "state" / "checkpoints").glob("*/")}
    assert kept - {wrecks["killed at its end"]} == {wrecks["killed early"], UNKNOWN}

    client().set_terminated(wrecks["mlflow run"], "KILLED")
    code, left = doctor()
    assert code == 0
    assert {each["severity"] for each in left} == {"note"}
    assert {each["check"] for each in left} == {"runs", "checkpoints", "data"}


# ------------------------------------------------------------------------------------------------- what is no wreck


def test_a_store_that_is_in_order(finished, doctor, cifar):
    outcome = cifar("doctor")
    assert outcome.code == 0, outcome.output
    lines = outcome.stdout.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 13
    note = " ".join(outcome.stdout[outcome.stdout.index("\nnote ") :].split())
    place = f"{Path.cwd().parent}/cache/cifar-mlflow"
    assert note == f"note data CIFAR-10 is not on this machine ({place}) do: cifar-mlflow download"


def test_living_and_foreign_runs_are_left_alone(doctor, make_run, client, monkeypatch):
    mine = make_run({"kind": "single", **processes.process_tags()})
    foreign = make_run({"made_by": "somebody else"})
    recent = make_run({"mlflow.project.entryPoint": "main"}, hours=0)
    elsewhere = make_run({**dead("trial"), "host": "another-machine"})
    model = client().create_logged_model("0", "half", source_run_id=mine, tags={"weights": "last"})
    code, findings = doctor("--fix")
    assert (code, about(findings, "runs", "models")) == (0, [])
    assert str(client().get_logged_model(model.model_id).status) == "PENDING"
    assert {client().get_run(run).info.status for run in (mine, foreign, recent, elsewhere)} == {"RUNNING"}


def test_a_process_number_that_is_taken_again_is_another_process(doctor, make_run, client):
    run = make_run({**dead("single"), "process_id": str(os.getpid())})
    assert doctor("--fix")[0] == 0
    assert client().get_run(run).info.status == "KILLED"


def test_files_of_others_are_left_alone_whatever_their_name(doctor, work):
    names = (".backup.999999.part", f".table.csv.{NO_PROCESS}.part", "backup.partial")
    for name in names:
        (work / name).write_text("somebody else's")
    code, findings = doctor("--fix")
    assert (code, about(findings, "leftovers")) == (0, [])
    assert [(work / name).read_text() for name in names] == ["somebody else's"] * 3


def test_a_spool_that_is_being_written_is_left_alone(doctor, work):
    writing = Outbox(work / "state" / "spool" / UNKNOWN, new=True)
    writing.append("run", experiment="e", name="n", tags={}, timestamp=1)
    assert doctor("--fix")[0] == 0
    assert writing.waiting == 1
    writing.close()


def test_without_a_store_none_is_made(doctor, work):
    (work / "mlflow.db").unlink()
    code, findings = doctor()
    assert (code, told(findings, "there is no store yet")["severity"]) == (0, "note")
    assert not (work / "mlflow.db").exists()


# ---------------------------------------------------------------------------------------------- one wreck at a time


def test_a_store_that_is_down_is_one_finding_and_this_machine_is_looked_at(doctor, cifar, tiny, monkeypatch, work):
    assert cifar("train", "--dataset", tiny, *TINY_TRAINING, "--offline").code == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    code, findings = doctor("--fix")
    assert code == NOT_IN_ORDER
    (down,) = about(findings, "store")
    assert "no MLflow server answers at http://***@127.0.0.1:9" in down["text"]
    assert "secret" not in json.dumps(findings)
    (waits,) = about(findings, "spools")
    assert (waits["fixable"], waits["remedy"]) == (False, "cifar-mlflow sync")


def test_an_older_store_is_told_with_the_command(doctor, work):
    with sqlite3.connect(work / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    code, findings = doctor("--fix")
    assert code == NOT_IN_ORDER
    assert f"mlflow db upgrade sqlite:///{work}/mlflow.db" in told(findings, "another version of MLflow")["text"]


def test_changed_and_missing_files_of_an_aliased_model(finished, doctor, client, work):
    store = tracking_store.connect()
    versions.ensure(store, "tiny")
    uri = f"models:/{finished.outputs.model_outputs[0].model_id}"
    aliases.move(store, "tiny", "champion", "promote", versions.register(store, "tiny", uri, finished.info.run_id))
    assert doctor()[0] == 0
    place = Path(client().get_logged_model(uri.removeprefix("models:/")).artifact_location)
    (place / "conda.yaml").write_text("something else")
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert "conda.yaml was changed" in told(findings, "models:/tiny@champion (version 1)")["text"]
    shutil.rmtree(place)
    assert "gone" in told(doctor()[1], "models:/tiny@champion")["text"]


def test_an_alias_that_somebody_moved(finished, doctor, client):
    store = tracking_store.connect()
    versions.ensure(store, "tiny")
    for output in finished.outputs.model_outputs:
        version = versions.register(store, "tiny", f"models:/{output.model_id}", finished.info.run_id)
        aliases.move(store, "tiny", "champion", "promote", version)
    client().set_registered_model_alias("tiny", "champion", "1")
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert "champion names version 1, by its record version 2" in told(findings, "registered model tiny")["text"]
    assert doctor("--fix")[0] == 0
    assert str(client().get_registered_model("tiny").aliases["champion"]) == "1"
    assert doctor()[0] == 0


def test_an_old_outbox_that_is_damaged(doctor, work):
    lines = [
        line("run", **RUN),
        line("tags", tags={"a": "b"}),
        b"damage\n",
        line("finish", status="FINISHED", timestamp=1),
    ]
    write_old(work / "state" / "spool" / UNKNOWN, lines)
    assert "2 damaged records" in about(doctor()[1], "spools")[0]["text"]
    assert about(doctor("--fix")[1], "spools")[0]["outcome"] == "delivered"
    (kept,) = about(doctor()[1], "spools")
    assert (kept["severity"], kept["remedy"][:20]) == ("note", "if they are of no us")
    assert Path(kept["text"].split(":")[0]).read_bytes().startswith(b"damage")


def test_an_outbox_that_cannot_be_read(doctor, work, cifar, tiny):
    assert cifar("train", "--dataset", tiny, *TINY_TRAINING, "--offline").code == 0
    (database,) = (work / "state" / "spool").glob("*/outbox.sqlite")
    database.write_bytes(b"no database" * 1000)
    code, findings = doctor("--fix")
    (found,) = about(findings, "spools")
    assert (code, found["severity"], found["fixable"]) == (NOT_IN_ORDER, "error", False)
    assert "file is not a database" in found["text"]
    assert cifar("sync").code == 4
    assert (database.read_bytes()[:11], len(list(database.parent.glob("payload/*")))) == (b"no database", 4)


def test_data_that_are_not_the_official_ones(doctor, work, monkeypatch):
    monkeypatch.setenv("CIFAR_MLFLOW_DATA", str(work))
    assert "CIFAR-10 is not in" in told(doctor()[1], "$CIFAR_MLFLOW_DATA")["text"]
    (work / "cifar-10-batches-py").mkdir()
    (work / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"no pickle")
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert "data_batch_1 is not the official file" in told(findings, "md5")["text"]


def test_packages_of_another_version(doctor, monkeypatch):
    from cifar_mlflow.jobs.health import machine

    real = machine.metadata.version
    monkeypatch.setattr(machine.metadata, "version", lambda name: "1.26.4" if name == "numpy" else real(name))
    code, findings = doctor()
    assert (code, told(findings, "numpy 1.26.4 is installed")["remedy"]) == (NOT_IN_ORDER, "pip install 'numpy<3,>=2'")


def test_compiled_functions_that_cannot_be_used(doctor, monkeypatch):
    monkeypatch.setattr(bindings, "fault", lambda: "the library is damaged")
    code, findings = doctor()
    assert (code, told(findings, "the library is damaged")["severity"]) == (NOT_IN_ORDER, "warning")


def test_an_installation_without_a_compiler_is_in_order(doctor, monkeypatch):
    monkeypatch.setattr(bindings, "fault", lambda: None)
    monkeypatch.setattr(bindings, "library_path", lambda: None)
    code, findings = doctor()
    assert (code, told(findings, "installed without a C compiler")["severity"]) == (0, "note")


def test_a_directory_that_cannot_be_written(doctor, monkeypatch):
    monkeypatch.setenv("CIFAR_MLFLOW_STATE", "/proc/nowhere")
    code, findings = doctor("--fix")
    assert (code, told(findings, "/proc/nowhere, cannot be written")["severity"]) == (NOT_IN_ORDER, "error")


@pytest.mark.parametrize(("version", "told_of"), [("2.9.1", True), (None, False)])
def test_a_server_of_another_version(version, told_of):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write((version or mlflow.__version__).encode())

        def log_message(self, *words):
            pass

    with QuietServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        store = tracking_store.Store(None, f"http://127.0.0.1:{server.server_port}", None)
        findings = list(leftovers.other_server(store))
    assert [finding.severity for finding in findings] == ["note"] * told_of
    assert not told_of or f"runs MLflow 2.9.1, and here is {mlflow.__version__}" in findings[0].text


def test_little_room(doctor, monkeypatch, work):
    from cifar_mlflow.jobs.health import machine

    (work / "mlruns").mkdir()
    (work / "mlruns" / "large").write_bytes(bytes(3_000_000))
    usage = shutil.disk_usage(work)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage._replace(free=10**8))
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert f"{work}/mlruns (3.0 MB)" in told(findings, "has 100.0 MB of room left")["text"]


def test_a_record_that_nobody_understands_stops_no_other_check(finished, doctor, client):
    client().create_registered_model("strange", tags={f"{aliases.PREFIX}000001": "no JSON"})
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert told(about(findings, "aliases"), "cannot be understood")


# -------------------------------------------------------------------------------------------------- the hint of train


def test_train_tells_in_one_line_what_earlier_processes_left(doctor, cifar, tiny):
    first = cifar("train", "--dataset", tiny, *TINY_TRAINING, "--offline")
    assert "earlier processes" not in first.stderr
    second = cifar("train", "--dataset", tiny, *TINY_TRAINING, "--offline", "--seed", 1)
    assert (
        second.stderr.splitlines()[0]
        == "1 run of earlier processes waits to be delivered or closed: cifar-mlflow doctor"
    )
    third = cifar("train", "--dataset", tiny, "--epochs", 0)
    assert "earlier processes" not in third.stderr
    assert doctor("--fix")[0] == 0
    assert "earlier processes" not in cifar("train", "--dataset", tiny, *TINY_TRAINING).stderr
