"""Saved views, the experiment's description and run colours, as they are written; the browser test opens them."""

from __future__ import annotations

import base64
import json
import zlib

import pytest

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.writing import ui_views

NOTE = "mlflow.note.content"


@pytest.fixture
def store(cifar):
    return tracking_store.connect()


@pytest.fixture
def experiment(store):
    """An experiment with two runs that differ in activation and seed."""
    created = store.experiment_id("colours")
    for activation, seed in (("relu", "0"), ("silu", "1")):
        run = store.client.create_run(created, tags={"kind": "single"})
        for name, value in {"activation": activation, "optimizer": "adam", "seed": seed}.items():
            store.client.log_param(run.info.run_id, name, value)
    return created


def tags(store, experiment):
    return dict(store.client.get_experiment(experiment).tags)


def state(store, experiment, key):
    value = json.loads(tags(store, experiment)[f"mlflow.sharedViewState.{key}"])
    return json.loads(zlib.decompress(base64.b64decode(value["state"].removeprefix("deflate;"))))


def test_without_swept_parameters_the_views_are_about_what_differs_but_for_the_seed(store, experiment):
    saved = ui_views.publish_views(store, experiment)
    assert list(saved) == ["Leaderboard: all runs", "Curves by activation: all runs"]
    curves = state(store, experiment, saved["Curves by activation: all runs"])
    assert curves["groupsExpanded"] == {"param.activation.relu": False, "param.activation.silu": False}
    assert [chart["metricKey"] for chart in curves["compareRunCharts"]] == [
        "val_accuracy",
        "val_loss",
        "train_accuracy",
    ]


def test_publishing_again_changes_nothing(store, experiment):
    first = ui_views.publish_views(store, experiment, ["activation", "optimizer"], sweep="s")
    before = tags(store, experiment)
    assert ui_views.publish_views(store, experiment, ["activation", "optimizer"], sweep="s") == first
    assert tags(store, experiment) == before


def test_without_validation_the_views_are_about_the_test_set(store, experiment):
    saved = ui_views.publish_views(store, experiment, ["activation"], sweep="s", trains_on_all=True)
    leaderboard = state(store, experiment, saved["Leaderboard: s"])
    assert leaderboard["orderByKey"] == "metrics.`epoch_test_accuracy`"
    assert "val_accuracy" not in json.dumps(leaderboard)


def test_the_description_is_kept_up_to_date_until_a_user_writes_one(store, experiment):
    ui_views.publish_views(store, experiment)
    ui_views.publish_views(store, experiment, ["activation"], sweep="s")
    ours = tags(store, experiment)[NOTE]
    assert "[all runs](#/" in ours
    assert "[s](#/" in ours
    store.client.set_experiment_tag(experiment, NOTE, ours + " Mine.")
    ui_views.publish_views(store, experiment, ["activation"], sweep="t")
    assert tags(store, experiment)[NOTE] == ours + " Mine."


def test_there_is_room_for_views_that_users_save(store, experiment):
    store.client.set_experiment_tag(experiment, "mlflow.sharedViewState.of-a-user", "{}")
    for number in range(17):
        saved = ui_views.publish_views(store, experiment, ["activation"], sweep=f"sweep-{number}")
    kept = {name for name in tags(store, experiment) if name.startswith("mlflow.sharedViewState.")}
    assert "mlflow.sharedViewState.of-a-user" in kept
    assert len(kept) == ui_views.MAX_VIEWS + 1
    assert {f"mlflow.sharedViewState.{key}" for key in saved.values()} <= kept
    assert len(tags(store, experiment)[NOTE]) < 5000


def test_a_colour_tells_configurations_apart_and_not_seeds():
    def color(**values):
        return ui_views.run_color(TrainingConfig(**values).fingerprint)

    assert color(seed=1) == color(seed=2)
    assert len({color(activation=name, epochs=epochs) for name in ("relu", "silu") for epochs in range(1, 30)}) > 55


def test_a_colour_can_be_read_on_white_and_on_dark_grey():
    for number in range(200):
        channels = [int(ui_views.run_color(str(number))[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) > 3
        assert (luminance + 0.05) / (0.0087 + 0.05) > 3


# ------------------------------------------------------------------------- what is in a view, as MLflow's UI reads it


def views(parameters=("activation", "optimizer"), settings=(), sweep="s", trains_on_all=False):
    found = ui_views._views(list(parameters), settings, "a filter", sweep, trains_on_all)
    return {key: (name, view) for key, name, view in found}


def test_a_sweep_has_a_leaderboard_curves_and_curves_by_each_parameter():
    assert {key: name for key, (name, _) in views().items()} == {
        "cifar-mlflow.sweep.s.leaderboard": "Leaderboard: s",
        "cifar-mlflow.sweep.s.curves": "Curves by activation, optimizer: s",
        "cifar-mlflow.sweep.s.by.activation": "Curves by activation: s",
        "cifar-mlflow.sweep.s.by.optimizer": "Curves by optimizer: s",
    }
    assert list(views(["activation"], sweep=None)) == ["cifar-mlflow.all.leaderboard", "cifar-mlflow.all.curves"]


def test_the_leaderboard_is_sorted_by_validation_and_shows_what_varies():
    leaderboard = views()["cifar-mlflow.sweep.s.leaderboard"][1]
    assert (leaderboard["orderByKey"], leaderboard["orderByAsc"]) == ("metrics.`best_val_accuracy`", False)
    assert leaderboard["searchFilter"] == "a filter"
    assert leaderboard["selectedColumns"] == [
        "metrics.`best_val_accuracy`", "metrics.`final_val_accuracy`", "metrics.`test_accuracy`",
        "params.`activation`", "params.`optimizer`", "params.`seed`",
    ]  # fmt: skip
    parallel, line = leaderboard["compareRunCharts"]
    assert (parallel["type"], parallel["selectedParams"]) == ("PARALLEL", ["activation", "optimizer"])
    assert (line["type"], line["metricKey"], line["useGlobalLineSmoothing"]) == ("LINE", "val_accuracy", True)
    opened = {section["name"]: section["display"] for section in leaderboard["compareRunSections"]}
    assert opened == {"Learning curves": True, "Model metrics": False, "System metrics": False}


def test_no_more_columns_than_can_be_seen():
    names = [f"p{number}" for number in range(ui_views.MAX_COLUMNS + 1)]
    found = views(names)
    leaderboard = found["cifar-mlflow.sweep.s.leaderboard"][1]
    assert sum("params." in column for column in leaderboard["selectedColumns"]) == ui_views.MAX_COLUMNS + 1  # and seed
    assert f"cifar-mlflow.sweep.s.by.{names[-1]}" not in found


def test_the_curves_are_grouped_and_collapsed():
    settings = [{"activation": "relu"}, {"activation": "elu"}, {"activation": "relu", "optimizer": "sgd"}]
    curves = views(settings=settings)["cifar-mlflow.sweep.s.curves"][1]
    assert curves["groupsExpanded"] == {
        "param.activation.elu,param.optimizer.null": False,
        "param.activation.relu,param.optimizer.null": False,
        "param.activation.relu,param.optimizer.sgd": False,
    }
    assert [group["groupByData"] for group in curves["groupBy"]["groupByKeys"]] == ["activation", "optimizer"]


def test_the_newest_of_two_views_is_the_first(store, experiment):
    saved = ui_views.publish_views(store, experiment, ["activation"], sweep="s")
    times = [
        json.loads(tags(store, experiment)[f"mlflow.sharedViewState.{key}"])["updatedAt"] for key in saved.values()
    ]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == len(times)


def test_a_view_that_says_something_else_is_renewed_and_keeps_its_age():
    first = ui_views._envelope("a", {"b": 1}, 100, None)
    assert ui_views._envelope("a", {"b": 1}, 200, first) == first
    for name, state in (("other", {"b": 1}), ("a", {"b": 2}), ("A", {"b": 1})):
        value = json.loads(ui_views._envelope(name, state, 200, first))
        assert (value["name"], value["createdAt"], value["updatedAt"]) == (name, 100, 200)


def test_the_parameters_shown_are_those_in_which_runs_differ():
    assert ui_views._varying([{"epochs": "1", "seed": "0"}, {"epochs": "2", "seed": "1"}]) == ["epochs"]
    assert ui_views._varying([{"epochs": "1"}, {"epochs": "2"}, {"epochs": "3"}, {}]) == ["epochs"]
    assert ui_views._varying([{"epochs": "1"}, {"epochs": "1"}]) == ["activation", "optimizer", "learning_rate"]


def test_a_configuration_has_its_colour_for_good():
    """Runs of today and of last year are of one colour."""
    colors = {
        "a": "#a906e0",
        "b": "#5c8827",
        "c": "#676d20",
        "d": "#a3722f",
        "e": "#3e7603",
        "f": "#a0912e",
        "g": "#cc10f9",
        "h": "#8888dc",
    }
    assert {name: ui_views.run_color(name) for name in colors} == colors
