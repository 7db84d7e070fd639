"""What a sweep writes to its parent, and on which side of a change each digest may lie."""

import json
from pathlib import Path

import pytest

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.sweeping import earlier, report, trial
from cifar_mlflow.records import RunRecord
from cifar_mlflow.tracking.reading import sweeps


class Parent:
    """In place of the parent's recorder."""

    def __init__(self):
        self.files, self.tags = {}, {}

    def log_files(self, files):
        self.files |= files

    def set_tags(self, tags):
        self.tags |= tags


def spec(**base):
    space = {"activation": ["relu", "elu"], "dropout": [0.1]}
    return parse_spec({"name": "s", "base": {"dataset": "digits", **base}, "space": space}, Path("/"))


def records(values, status="FINISHED", **fields):
    return [
        RunRecord(
            f"{name}-{seed}", "run", status, seed, {"activation": name, "validation_size": 10, **fields}, "trial",
            {"final_val_accuracy": value, "epoch_test_accuracy": value},
            curves={"val_accuracy": [(1, value)]},
        )
        for name, found in values.items() for seed, value in enumerate(found)
    ]  # fmt: skip


def test_the_winner_is_a_tag_and_the_results_are_files():
    parent = Parent()
    found, winner = report.publish(parent, spec(), records({"relu": [70.0, 71.0], "elu": [80.0, 81.0]}), {})
    assert sorted(parent.files) == ["curves.png", "report.html", "results.csv", "results.json"]
    assert parent.tags[sweeps.WINNER_TAG] == winner.run_id == "elu-0"
    assert parent.tags["mlflow.note.content"] == f"Sweep of activation, dropout. Winner: {winner.text}."
    assert json.loads(parent.files["results.json"])["configurations"][0]["parameters"]["activation"] == "elu"
    assert b"Sweep s" in parent.files["report.html"]
    assert parent.files["results.csv"].startswith(b"parameter:activation,n,")
    assert found.best is not None


def test_what_the_objective_depends_on_is_shown_where_it_is_known():
    parent = Parent()
    report.publish(parent, spec(), records({"relu": [70.0], "elu": [80.0]}), {"activation": 0.75, "dropout": 0.25})
    assert json.loads(parent.files["importances.json"]) == {"activation": 0.75, "dropout": 0.25}
    assert parent.files["importances.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (records({"relu": [70.0]}, validation_size=0), "A replication on the test set: a table, and no winner."),
        (records({"relu": [70.0]}, "FAILED"), report.NOTHING_FINISHED),
    ],
)
def test_without_a_winner_none_is_named(found, told):
    parent = Parent()
    _, winner = report.publish(parent, spec(), found, {})
    assert (winner, sweeps.WINNER_TAG in parent.tags) == (None, False)
    assert parent.tags["mlflow.note.content"] == f"Sweep of activation, dropout. {told}"


def test_a_winner_that_pruning_chose_by_one_seed_is_told_to_be_lucky():
    chosen = [
        RunRecord(each.run_id, each.name, each.status, each.seed, each.parameters, each.kind, each.metrics,
                  tags={"chosen_by_seed": "0"})
        for each in records({"relu": [70.0], "elu": [80.0]})
    ]  # fmt: skip
    _, winner = report.publish(Parent(), spec(), chosen, {})
    assert winner.text.endswith("(one run, by which successive halving chose it: a lucky one)")


# ---------------------------------------------------------------------------------------------- the same data as then


@pytest.mark.parametrize(("then", "now"), [("a", "b"), ("b", "a")])
def test_other_data_are_refused_whichever_digest_is_larger(then, now):
    config = resolve({"dataset": "digits", "activation": "elu"})
    tags = {"run_fingerprint": config.run_fingerprint(then), "dataset_digest": then}
    record = RunRecord("1" * 32, "r", "FINISHED", 0, dict(config), tags=tags)
    earlier.refuse_changed(spec(), [record], lambda config: (then, "", ""))
    with pytest.raises(ConfigurationError, match=f"then it had the digest {then}, now it has {now}"):
        earlier.refuse_changed(spec(), [record], lambda config: (now, "", ""))


def test_a_worker_refuses_other_data_whichever_fingerprint_is_larger(monkeypatch):
    config = resolve({"dataset": "digits"})
    here = config.run_fingerprint("here")
    monkeypatch.setattr(trial, "load_dataset", lambda config: None)
    monkeypatch.setattr(trial, "digests", lambda config: ("here", "", ""))
    for other in ("0" * len(here), "f" * len(here)):
        planned = trial.TrialRun(config, "n", {"run_fingerprint": other})
        with pytest.raises(ConfigurationError, match="data, network or weights have changed"):
            trial.run_trial(spec(), "e", planned, lambda event: True)
