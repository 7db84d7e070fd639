"""Sweeps that run to their end, with runs that fail, are pruned or are not judged."""

from __future__ import annotations

import os

from support import run_here
from sweeps import trained_once

from cifar_mlflow.learning.compiled import bindings
from cifar_mlflow.tracking import queries

# --------------------------------------------------------------------------------------------------- to the end


def test_all_runs_stand_under_one_parent(finished, client, parent, children, runs):
    found = children()
    assert len(found) == 8
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == {parent().info.run_id}
    assert {run.info.status for run in runs()} == {"FINISHED"}
    assert trained_once(found)
    history = client().get_metric_history(found[0].info.run_id, "val_accuracy")
    assert [metric.step for metric in history] == [1, 2]
    assert "of 8" not in finished.stdout
    assert "8 runs" in finished.stderr
    assert "winner activation elu" in finished.stdout
    winner = parent().data.tags["winner_run"]
    assert f"model     cifar-mlflow reproduce {winner} (the sweep has kept none: log_models: false)" in finished.stdout


def test_the_parent_carries_results_and_no_accuracies_of_its_own(finished, client, parent):
    files = {file.path for file in client().list_artifacts(parent().info.run_id)}
    assert files >= {"sweep.yaml", "results.csv", "results.json", "report.html", "curves.png", "importances.json"}
    assert parent().data.metrics == {}
    assert "Winner" in parent().data.tags["mlflow.note.content"]


def test_started_again_with_the_same_spec_it_trains_nothing(finished, write_spec, children, table, parent):
    before, ids = table(), {run.info.run_id for run in children()}
    outcome = run_here("sweep", write_spec())
    assert outcome.code == 0, outcome.output
    assert "nothing is left to train" in outcome.stderr
    assert {run.info.run_id for run in children()} == ids
    assert table() == before
    assert parent().info.status == "FINISHED"


def test_started_again_it_reads_its_own_runs_alone(finished, write_spec, client, parent, asked, monkeypatch):
    def requests():
        asked.clear()
        assert run_here("sweep", write_spec()).code == 0
        return {name: count for name, count in asked.items() if "experiment" not in name}

    monkeypatch.setattr(queries, "PAGE", 5)  # its own eight take two
    requests()  # which may change a view
    alone = requests()
    assert alone["get_metric_history_bulk"] == 1  # for the report; what there is left to train needs no curves
    for number in range(6):
        tags = {"kind": "trial", "sweep": "other", "sweep_id": "0" * 32, "run_fingerprint": str(number)}
        run = client().create_run(parent().info.experiment_id, tags=tags)
        client().set_terminated(run.info.run_id)
    assert requests() == alone


def test_compiled_functions_that_cannot_be_used_are_told_of_once(finished, write_spec, monkeypatch):
    monkeypatch.setattr(bindings, "fault", lambda: "the library is damaged")
    outcome = run_here("sweep", str(write_spec()))
    assert outcome.stderr.count("warning: the library is damaged") == 1


def test_a_changed_spec_is_refused_and_says_what_changed(finished, write_spec, runs):
    before = len(runs())
    outcome = run_here("sweep", write_spec(base={"epochs": 3}, space={"activation": ["relu"], "gamma": [0.1]}))
    assert outcome.code == 2
    for change in (
        "base: epochs: was 2, is 3",
        "activation: elu is gone",
        "learning_rate: was",
        "gamma: was not given",
    ):
        assert change in outcome.stderr
    assert len(runs()) == before


def test_a_spec_that_only_adds_is_continued(finished, write_spec, children, table):
    before = {run.info.run_id for run in children()}
    space = {"activation": ["relu", "elu"], "learning_rate": [0.002, 0.01, 0.005]}
    outcome = run_here("sweep", write_spec(space=space, repeats=3))
    assert outcome.code == 0, outcome.output
    assert "18 runs, 8 done before; 10 to train" in outcome.stderr
    found = children()
    assert before < {run.info.run_id for run in found}
    assert len(found) == 18
    assert trained_once(found)
    assert [row["n"] for row in table()] == ["3"] * 6


def test_under_mlflow_run_the_parent_is_the_run_that_mlflow_made(finished, write_spec, client, children, parent):
    old = parent()
    run = client().create_run(old.info.experiment_id)
    os.environ["MLFLOW_RUN_ID"] = run.info.run_id
    outcome = run_here("sweep", write_spec())
    assert outcome.code == 0, outcome.output
    assert {child.data.tags["mlflow.parentRunId"] for child in children()} == {run.info.run_id}
    assert client().get_run(run.info.run_id).info.status == "FINISHED"
    assert client().get_run(old.info.run_id).data.tags["superseded_by"] == run.info.run_id
    assert len(children()) == 8


# ------------------------------------------------------------------------------------ failed, pruned, not judged


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(cifar, write_spec, children):
    spec = write_spec(space={"learning_rate": [0.002, 1.0e30]}, base={"optimizer": "sgd"})
    outcome = run_here("sweep", spec)
    assert outcome.code == 0, outcome.output
    assert "4 runs, 2 failed" in outcome.stdout
    failed = [run for run in children() if run.info.status == "FAILED"]
    assert len(failed) == 2
    assert "the loss is" in failed[0].data.tags["failure"]
    # The same would happen again, so it is not tried again.
    again = run_here("sweep", spec)
    assert "nothing is left" in again.stderr
    assert len(children()) == 4


def test_a_sweep_of_which_every_run_fails_ends_in_an_error(cifar, write_spec, parent):
    outcome = run_here("sweep", write_spec(space={"learning_rate": [1.0e30]}, base={"optimizer": "sgd"}))
    assert outcome.code == 5
    assert "every run of the sweep failed (2)" in outcome.stderr
    assert parent().info.status == "FAILED"
    assert parent().data.tags["mlflow.note.content"].endswith("No run has finished, so there is no winner.")


def test_an_earlier_winner_does_not_count_while_the_sweep_runs_again_or_after_it_was_broken_off(
    finished, client, parent
):
    for status in ("RUNNING", "KILLED"):
        client().update_run(parent().info.run_id, status)
        outcome = run_here("promote", "--best-of", "tiny", "--dry-run")
        assert outcome.code == 6
        assert f"the sweep 'tiny' is {status}" in outcome.stderr
    client().update_run(parent().info.run_id, "FINISHED")
    client().set_tag(parent().info.run_id, "superseded_by", "0" * 32)
    outcome = run_here("promote", "--best-of", parent().info.run_id, "--dry-run")
    assert f"was started anew; give the run id of that start: {'0' * 32}" in outcome.stderr


def test_only_the_first_seed_is_pruned_and_a_pruned_configuration_has_no_others(cifar, write_spec, children, table):
    spec = write_spec(
        space={"learning_rate": {"low": 1.0e-6, "high": 0.01, "log": True}},
        base={"epochs": 6},
        sampler="random",
        trials=6,
        pruner="successive_halving",
    )
    outcome = run_here("sweep", spec)
    assert outcome.code == 0, outcome.output
    by_trial: dict[str, list] = {}
    for run in children():
        by_trial.setdefault(run.data.tags["trial"], []).append(run)
    pruned = [found for found in by_trial.values() if any(run.data.tags.get("pruned") for run in found)]
    assert len(by_trial) == 6
    assert pruned, "nothing was pruned, so this test shows nothing"
    for found in pruned:
        (run,) = found
        assert (run.data.params["seed"], run.info.status) == ("0", "KILLED")
        assert "failure" not in run.data.tags
    kept = [found for found in by_trial.values() if found not in pruned]
    assert all(len(found) == 2 for found in kept)
    # The seed that brought a configuration through does not judge it.
    assert [run.data.params["seed"] for found in kept for run in found if "chosen_by_seed" in run.data.tags] == [
        "0"
    ] * len(kept)
    assert {(row["n"], row["seeds"]) for row in table() if row["n"] != "0"} == {("1", "1")}
    assert "is not counted, they are judged by their other seeds alone" in " ".join(outcome.stdout.split())
    assert "pruned" in outcome.stdout
    count = len(children())
    assert "nothing is left" in run_here("sweep", spec).stderr
    assert len(children()) == count


def test_without_validation_images_there_is_a_table_and_no_winner(cifar, write_spec, parent, children):
    outcome = run_here("sweep", write_spec(base={"validation_size": 0}, space={"activation": ["relu", "elu"]}))
    assert outcome.code == 0, outcome.output
    assert "no winner" in outcome.stdout
    assert "Nothing may be chosen" in " ".join(outcome.stdout.split())
    assert "best so far" not in outcome.stderr
    assert all("final_val_accuracy" not in run.data.metrics for run in children())


def test_a_budget_of_runs_is_kept_and_a_larger_one_goes_on(cifar, write_spec, children):
    first = run_here("sweep", write_spec(budget={"runs": 3}))
    assert first.code == 0, first.output
    assert len(children()) == 3
    assert "(5 runs left)" in first.stdout
    second = run_here("sweep", write_spec())
    assert second.code == 0, second.output
    assert len(children()) == 8
    assert trained_once(children())
