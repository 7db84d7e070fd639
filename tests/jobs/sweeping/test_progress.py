"""What is said of a sweep: its size before, each run as it ends, the winner after."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from cifar_mlflow.analysis.comparison import verdicts
from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs import listener
from cifar_mlflow.jobs.sweeping import estimate, places, progress, report, trial, worker
from cifar_mlflow.jobs.training.record import Pruned
from cifar_mlflow.records import RunRecord, TrialOutcome


def spec(**changes):
    values = {"name": "s", "base": {"dataset": "digits", "epochs": 4}, "space": {"activation": ["relu", "elu", "gelu"]}}
    return parse_spec({**values, **changes}, Path("/"))


@pytest.fixture
def said():
    """The lines that are said meanwhile."""

    lines: list[str] = []
    heard = listener.Listener()
    heard.note = lines.append
    with listener.listening(heard):
        yield lines


# ------------------------------------------------------------------------------------------------- its size, before


@pytest.fixture
def estimated(monkeypatch):
    """A function that estimates a sweep on four cores, of which each run takes a minute."""
    monkeypatch.setattr(estimate, "_seconds_a_run", lambda *_: 60.0)
    monkeypatch.setattr(worker, "images_per_second", lambda spec: 1.0)
    monkeypatch.setattr(places, "cores", lambda: 4)

    def of(outcomes=(), has_next=True, **changes):
        known = {str(number): TrialOutcome(status) for number, status in enumerate(outcomes)}
        swept = spec(**changes)
        runs = swept.configurations * swept.repeats - outcomes.count("PRUNED") * (swept.repeats - 1)
        return estimate.estimate(
            swept,
            SimpleNamespace(own_outcomes=known, parts=None, has_next=lambda: has_next, runs=runs),
            places.Here(swept),
        )

    return of


def test_all_runs_are_left_of_a_new_sweep_and_share_the_cores(estimated):
    found = estimated(repeats=2)
    assert (found.left, found.workers, found.epochs) == (6, 4, 4)
    assert found.text == (
        "sweep s: 3 configurations x 2 seeds = 6 runs; 6 to train by 4 workers with 1 thread each: about 2 min"
    )


@pytest.mark.parametrize(
    ("changes", "workers"),
    [
        ({"repeats": 9}, 4),
        ({"repeats": 9, "threads": 3}, 1),
        ({"repeats": 9, "threads": 2}, 2),
        ({"repeats": 9, "threads": 9}, 1),
        ({"repeats": 9, "workers": 2}, 2),
        ({"repeats": 1}, 3),
    ],
)
def test_there_are_as_many_workers_as_cores_and_runs_allow(estimated, changes, workers):
    assert estimated(**changes).workers == workers


def test_more_workers_than_cores_are_told_of(estimated):
    assert estimated(workers=5, repeats=2).text.endswith("(5 workers were asked for; there are 4 cores)")
    assert "asked for" not in estimated(workers=4, repeats=2).text


def test_what_is_done_is_left_out_and_a_pruned_one_has_no_other_seeds(estimated):
    found = estimated(["FINISHED", "FAILED"], repeats=3)
    assert found.left == 7
    assert "= 9 runs, 2 done before; 7 to train" in found.text
    assert estimated(["PRUNED", "PRUNED"], repeats=3, pruner="successive_halving").left == 3
    done = estimated(["FINISHED"] * 9, has_next=False, repeats=3)
    assert done.left == 0
    assert done.text.endswith(": nothing is left to train")


def test_a_budget_limits_what_is_left(estimated):
    assert estimated(budget={"runs": 2}).left == 2
    assert estimated(["FINISHED"], budget={"runs": 2}).left == 1
    assert estimated(["FINISHED"] * 2, budget={"runs": 2}).left == 0
    assert estimated(budget={"runs": 99}).left == 3
    assert "at most 5 min and what is then running" in estimated(budget={"minutes": 5}).text


def test_where_the_epochs_vary_a_run_has_as_many_as_on_average(estimated):
    assert estimated(space={"epochs": [2, 4, 12]}).epochs == 6
    assert estimated(space={"epochs": {"low": 2, "high": 10, "step": 2}}).epochs == 6


def test_a_warning_is_told_if_it_is_true_of_every_combination(monkeypatch):
    from cifar_mlflow.learning.compiled import bindings

    monkeypatch.setattr(bindings, "warning", lambda: "nothing was compiled")
    space = {"scheduler": ["cosine", "step"]}
    base = {"dataset": "digits", "epochs": 4, "momentum": 0.9, "step_size": 2}
    told = estimate.warnings(spec(base=base, space=space))
    assert told == [
        "nothing was compiled",
        "--momentum 0.9 has no effect with --optimizer adam (it acts with muon, rmsprop, sgd)",
    ]
    assert len(estimate.warnings(spec(base={**base, "accelerate": "none"}, space=space))) == 1


# ---------------------------------------------------------------------------------------------------- run by run


@pytest.fixture
def at(monkeypatch):
    """A function that sets the time."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def test_each_run_is_a_line_with_the_best_so_far_and_the_time_left(said, at):
    shown = progress.SweepProgress(spec(repeats=2), 10, 4)
    shown.known({"activation": "elu"}, 60.0)
    shown.known({"activation": "elu"}, None)
    at(30)
    shown.run({"activation": "relu"}, "relu, seed 0", TrialOutcome("FINISHED", 70.0))
    at(60)
    shown.run({"activation": "gelu"}, "gelu, seed 0", TrialOutcome("FAILED", reason="too large"))
    shown.run({"activation": "elu"}, "elu, seed 1", TrialOutcome("FINISHED", 62.0))
    best = "activation relu: 70.00 (n=1, no interval)"
    assert said[0] == f"run  1/10  relu, seed 0: 70.00; best so far: {best}, 4 min left"
    assert said[1].startswith("run  2/10  gelu, seed 0: failed: too large; best so far: activation relu")
    # One that was repeated comes before a single run, which may be luck.
    assert "best so far: activation elu: 61.00 (" in said[2]
    assert ", n=2)" in said[2]


def test_with_a_pruned_run_its_other_seeds_are_gone(said, at):
    shown = progress.SweepProgress(spec(repeats=3, pruner="successive_halving"), 6, 4)
    at(10)
    shown.run({"activation": "relu"}, "a", TrialOutcome("PRUNED"))
    assert said == ["run 1/4  a: pruned, 30 s left"]


def test_after_the_last_run_no_time_is_left(said, at):
    shown = progress.SweepProgress(spec(), 1, 4)
    at(10)
    shown.run({"activation": "relu"}, "a", TrialOutcome("FINISHED", 70.0))
    assert said[0].endswith("(n=1, no interval)")


def test_the_best_loss_is_the_lowest_and_a_replication_has_no_best(said, at):
    shown = progress.SweepProgress(spec(objective="val_loss"), 3, 4)
    shown.known({"activation": "relu"}, 0.5)
    shown.known({"activation": "elu"}, 0.25)
    shown.known({"activation": "gelu"}, 0.75)
    assert shown._best().startswith("activation elu: 0.25")
    replication = progress.SweepProgress(spec(base={"dataset": "digits", "validation_size": 0}), 3, 4)
    replication.known({"activation": "relu"}, 70.0)
    assert replication._best() == ""


def test_the_best_is_so_by_its_mean_however_often_it_was_run(said, at):
    shown = progress.SweepProgress(spec(), 9, 4)
    for name, values in {"relu": [70.0, 71.0], "elu": [60.0, 61.0, 62.0]}.items():
        for value in values:
            shown.known({"activation": name}, value)
    assert shown._best().startswith("activation relu: 70.50")


# ---------------------------------------------------------------------------------------------- a run, in its worker


def result(epoch, accuracy=70.0, loss=0.5):
    return SimpleNamespace(epoch=epoch, held_out_accuracy=accuracy, held_out_loss=loss)


@pytest.mark.parametrize(("objective", "value"), [("final_val_accuracy", 70.0), ("val_loss", 0.5)])
def test_the_driver_is_told_the_objective_of_each_epoch_that_was_scored(objective, value):
    heard = []
    reporter = trial._Reporter(objective, lambda event: heard.append(event) or True)
    reporter.epoch(result(1, math.nan, math.nan))
    assert heard == []
    reporter.epoch(result(2))
    assert heard == [(2, value)]
    assert reporter.value == value


def test_a_run_ends_when_the_driver_says_no():
    reporter = trial._Reporter("final_val_accuracy", lambda event: event[0] < 2)
    reporter.epoch(result(1))
    with pytest.raises(Pruned, match="pruned after epoch 2"):
        reporter.epoch(result(2))


def test_what_data_there_are_is_all_that_the_data_depend_on():
    settings = trial.data_settings(TrainingConfig(dataset="digits", split_seed=3, epochs=7, seed=2))
    assert (settings.dataset, settings.split_seed) == ("digits", 3)
    assert settings == trial.data_settings(TrainingConfig(dataset="digits", split_seed=3))
    assert settings != trial.data_settings(TrainingConfig(dataset="digits", split_seed=4))


# ------------------------------------------------------------------------------------------------------ the winner


def compared(values, **fields):
    records = [
        RunRecord(
            f"{name}-{seed}", "run", "FINISHED", seed, {"activation": name, "validation_size": 10, **fields}, "trial",
            {"final_val_accuracy": value, "epoch_test_accuracy": value},
        )
        for name, found in values.items() for seed, value in enumerate(found)
    ]  # fmt: skip
    return verdicts.compare(records)


def test_the_winner_is_the_run_with_the_first_seed_of_the_best_configuration():
    values = {"relu": [70.0, 70.5, 69.5], "elu": [80.0, 81.0, 80.5], "gelu": [80.4, 79.9, 80.1]}
    winner = report._winner(compared(values))
    assert winner.run_id == "elu-0"
    assert winner.text.startswith("activation elu: final_val_accuracy 80.50 (95% interval ")
    assert winner.text.endswith(", n=3); 1 other cannot be told apart from it")


def test_of_single_runs_the_winner_is_the_highest_and_its_luck_is_said():
    winner = report._winner(compared({"relu": [70.0], "elu": [80.0]}))
    assert winner.run_id == "elu-0"
    assert winner.text.endswith("80.00 (one run: no interval, so nothing is known of its luck)")


def test_a_replication_and_a_sweep_without_runs_have_no_winner():
    assert report._winner(compared({"relu": [70.0, 71.0]}, validation_size=0)) is None
    with pytest.raises(ConfigurationError):
        compared({})
