"""What the doctor must not touch: what lives, and what belongs to others."""

import os

from wrecks import NO_PROCESS, UNKNOWN, about, dead, told

from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.outbox.log import Outbox


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
