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
