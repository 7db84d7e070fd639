"""`cifar-mlflow list`: the latest runs, without a browser."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import TINY_TRAINING, run_here

from cifar_mlflow.tracking.processes import process_tags
from cifar_mlflow.tracking.reading import latest


def test_no_run_yet(cifar, work):
    outcome = cifar("list")
    assert outcome.code == 0
    first = "cifar-mlflow train --dataset digits --epochs 2"
    assert outcome.stdout == f"no run yet in sqlite:///{work}/mlflow.db; this makes one: {first}\n"
    assert json.loads(cifar("list", "--format", "json").stdout) == []


def test_a_run_in_every_form(cifar, trained):
    run_id = trained.info.run_id
    heading, line = cifar("list").stdout.splitlines()
    assert heading.split() == [
        "run",
        "name",
        "kind",
        "experiment",
        "status",
        "accuracy",
        "test",
        "started",
        "(UTC)",
        "minutes",
    ]
    accuracy = trained.data.metrics["final_val_accuracy"]
    assert line.split()[:7] == [run_id[:8], trained.info.run_name, "single", "tiny", "finished", f"{accuracy:.2f}", "-"]
    (told,) = json.loads(cifar("list", "--format", "json").stdout)
    assert (told["run_id"], told["accuracy"], told["metric"]) == (run_id, accuracy, "final_val_accuracy")
    (row,) = csv.DictReader(io.StringIO(cifar("list", "--format", "csv").stdout))
    assert {name: row[name] for name in ("run_id", "status", "started")} == {
        "run_id": run_id, "status": "FINISHED", "started": told["started"],
    }  # fmt: skip


def test_the_newest_first_and_no_more_than_asked_for(cifar, tiny, trained):
    cifar("train", "--dataset", tiny, *TINY_TRAINING, "--epochs", "1", "--experiment", "other", "--run-name", "second")
    names = [run["name"] for run in json.loads(cifar("list", "--format", "json").stdout)]
    assert names == ["second", trained.info.run_name]
    assert len(cifar("list", "--count", "1").stdout.splitlines()) == 2
    only = json.loads(cifar("list", "--experiment", "tiny", "--format", "json").stdout)
    assert [run["name"] for run in only] == [trained.info.run_name]


def test_an_experiment_that_is_not_there(cifar, trained):
    outcome = cifar("list", "--experiment", "tinny")
    assert outcome.code == 6
    assert "there is no experiment 'tinny'" in outcome.stderr
    assert "(did you mean tiny?)" in outcome.stderr


def test_a_sweep_has_its_winners_accuracy(cifar, client, trained):
    tags = {"kind": "sweep", "winner_run": trained.info.run_id}
    client().create_run(trained.info.experiment_id, run_name="wide", tags=tags)
    sweep, run = json.loads(cifar("list", "--format", "json").stdout)
    assert (sweep["name"], sweep["kind"], sweep["accuracy"]) == ("wide", "sweep", run["accuracy"])


def test_a_sweep_whose_winner_is_gone_is_listed_all_the_same(cifar, client, trained):
    tags = {"kind": "sweep", "winner_run": "0" * 32}
    client().create_run(trained.info.experiment_id, run_name="wide", tags=tags)
    sweep, _ = json.loads(cifar("list", "--format", "json").stdout)
    assert (sweep["name"], sweep["accuracy"]) == ("wide", None)


@pytest.fixture
def varied(cifar, client, trained):
    """A store with what `list` must tell apart: a sweep with a winner and one without, what is hidden, odd metrics."""
    store, experiment = client(), trained.info.experiment_id

    def create(name, start, **tags):
        return store.create_run(experiment, start_time=start, run_name=name, tags=tags).info.run_id

    create("won", 3000, kind="sweep", winner_run=trained.info.run_id)
    store.log_metric(create("lost", 2000, kind="sweep", winner_run="0" * 32), "train_accuracy", 12.5)
    odd = create("odd", 2000, kind="single")
    store.log_metric(odd, "final_val_accuracy", float("nan"))
    store.log_metric(odd, "test_accuracy", float("inf"))
    store.set_terminated(create("ended", 1000, kind="single"), "FAILED", end_time=61_000)
    for kind in ("job", "trial"):
        create(kind, 4000, kind=kind)
    create("of another program", 5000)
    store.delete_run(create("deleted", 6000, kind="single"))
    winner_deleted = create("winner", 6000, kind="trial")
    store.log_metric(winner_deleted, "val_accuracy", 50.0)
    store.delete_run(winner_deleted)
    create("its winner is deleted", 1500, kind="sweep", winner_run=winner_deleted)


def test_the_tables_tell_what_mlflow_tells(cifar, varied, monkeypatch):
    form = ("--format", "json")
    cases = [("list", *form), ("list", "--count", "3", *form), ("list", "--experiment", "Default", *form)]
    read_here = [cifar(*words).stdout for words in cases]
    names = [run["name"] for run in json.loads(read_here[0])]
    assert names[1:4] == ["won", *sorted(names[2:4], key=names.index)]
    assert {"of another program", "deleted", "job", "trial"}.isdisjoint(names)
    monkeypatch.setattr(latest, "TABLES", "those of another version")
    assert [cifar(*words).stdout for words in cases] == read_here


def test_mlflow_is_not_imported_for_its_own_tables(varied, work):
    code = """if True:
        import sys
        from cifar_mlflow.jobs.browsing.runs import latest
        print(len(latest()), {"mlflow", "torch", "sqlalchemy"} & {*sys.modules})
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "6 set()\n"


def test_no_store_is_made_by_looking(work):
    (work / "elsewhere").mkdir()
    os.chdir(work / "elsewhere")
    assert run_here("list").stdout.startswith(f"no run yet in sqlite:///{work}/elsewhere/mlflow.db; this makes one: ")
    assert run_here("list", "--experiment", "digits").code == 6
    assert not list(Path.cwd().iterdir())


def test_a_run_whose_process_is_gone_has_died(cifar, client, trained):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    left = process_tags() | {"process_id": str(gone.pid)}
    experiment = trained.info.experiment_id
    ids = {
        name: client().create_run(experiment, run_name=name, tags=tags).info.run_id
        for name, tags in {
            "broken": left | {"kind": "single", "config_fingerprint": "f", "run_fingerprint": "r"},
            "again": left | {"kind": "single", "reproduces": trained.info.run_id},
            "many": left | {"kind": "sweep"},
            "shared": left | {"kind": "sweep", "part.1": json.dumps(claim(process_tags()))},
            "at work": process_tags() | {"kind": "single"},
            "elsewhere": left | {"kind": "single", "boot_id": "another", "machine_id": "another"},
        }.items()
    }
    told = {run["name"]: (run["status"], run["go_on"]) for run in json.loads(cifar("list", "--format", "json").stdout)}
    assert told == {
        "broken": ("DIED", f"cifar-mlflow train --resume {ids['broken']}"),
        "again": ("DIED", f"cifar-mlflow reproduce {trained.info.run_id}"),
        "many": ("DIED", "cifar-mlflow sweep SPEC"),
        "shared": ("RUNNING", None),
        "at work": ("RUNNING", None),
        "elsewhere": ("RUNNING", None),
        trained.info.run_name: ("FINISHED", None),
    }
    table = cifar("list", "--count", "6")
    assert table.stdout.count(" died ") == 3
    assert f"broken died, its process is gone; to go on: cifar-mlflow train --resume {ids['broken']}" in table.stderr
    assert "DIED" in cifar("compare", ids["broken"], trained.info.run_id).stdout


def claim(process):
    return {"key": "k", "ended": False, "renewed": time.time(), **process}
