"""The doctor looks at a store, its aliased models, and outboxes that wait for it."""

import http.server
import json
import shutil
import sqlite3
import threading
from pathlib import Path

import mlflow
import pytest
from support import RUN, TINY_TRAINING, QuietServer, line, write_old
from wrecks import NOT_IN_ORDER, UNKNOWN, about, told

from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import team_server
from cifar_mlflow.tracking.registry import aliases, versions


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
        findings = list(team_server.other_version(store))
    assert [finding.severity for finding in findings] == ["note"] * told_of
    assert not told_of or f"runs MLflow 2.9.1, and here is {mlflow.__version__}" in findings[0].text


def test_a_record_that_nobody_understands_stops_no_other_check(finished, doctor, client):
    client().create_registered_model("strange", tags={f"{aliases.PREFIX}000001": "no JSON"})
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert told(about(findings, "aliases"), "cannot be read")
