"""`cifar-mlflow list`: the latest runs, without a browser."""

from __future__ import annotations

import csv
import io
import json

from support import TINY_TRAINING


def test_no_run_yet(cifar):
    outcome = cifar("list")
    assert outcome.code == 0
    assert outcome.stdout == "no run yet; this makes one: cifar-mlflow train --dataset digits --epochs 2\n"
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
