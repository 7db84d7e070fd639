"""The doctor: each wreck is named with what to do, --fix repairs what it says, and the second look is clean."""

import json
import shutil
import time
from pathlib import Path

import forked
import pytest
from support import TINY_TRAINING
from wrecks import NO_PROCESS, NOT_IN_ORDER, UNKNOWN, about, dead, told

from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.registry import aliases, lease, versions


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


def test_a_store_that_is_in_order(finished, doctor, cifar):
    outcome = cifar("doctor")
    assert outcome.code == 0, outcome.output
    lines = outcome.stdout.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 14
    note = " ".join(outcome.stdout[outcome.stdout.index("\nnote ") :].split())
    place = f"{Path.cwd().parent}/cache/cifar-mlflow"
    assert note == f"note data CIFAR-10 is not on this machine ({place}) do: cifar-mlflow download"


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
