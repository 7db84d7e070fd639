"""Reading back: how often the store is asked depends on what is shown, not on what is stored."""

from __future__ import annotations

import math

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking import queries, store
from cifar_mlflow.tracking.reading import metric_curves, selection

METRIC = "val_accuracy"


@pytest.fixture
def add_sweep(client):
    """Writes a sweep's parent and so many trials, of two configurations; returns the parent's run id and theirs."""

    def add(name, trials, experiment="digits"):
        there = client().get_experiment_by_name(experiment)
        experiment_id = there.experiment_id if there else client().create_experiment(experiment)
        parent = client().create_run(experiment_id, tags={"kind": "sweep", "sweep": name}).info.run_id
        tags = {"kind": "trial", "sweep": name, "sweep_id": parent}
        made = []
        for number in range(trials):
            config = resolve({"activation": ("relu", "elu")[number % 2], "seed": number})
            described = tags | {"config_fingerprint": config.fingerprint}
            run_id = client().create_run(experiment_id).info.run_id
            metrics = [Metric(METRIC, 70 + number + epoch, epoch, epoch) for epoch in (1, 2)]
            client().log_batch(
                run_id,
                [*metrics, Metric("final_val_accuracy", 72.0 + number, 3, 0)],
                [Param(key, value) for key, value in config.as_options().items()],
                [RunTag(key, value) for key, value in described.items()],
            )
            client().set_terminated(run_id)
            made.append(run_id)
        return parent, made

    return add


@pytest.mark.parametrize("form", ["csv", "html"])
def test_a_sweep_is_read_with_as_many_requests_in_any_store(cifar, add_sweep, asked, form):
    def requests():
        asked.clear()
        assert cifar("compare", "mine", "--format", form).code == 0
        return dict(asked)

    add_sweep("mine", 4)
    alone = requests()
    for number in range(3):
        add_sweep(f"other{number}", 4, experiment=f"experiment{number}")
    assert requests() == alone


@pytest.mark.parametrize("form", ["csv", "html"])
def test_more_runs_take_no_more_requests_within_a_page(cifar, add_sweep, asked, form):
    counts = []
    for trials in (4, 12):
        add_sweep(f"of-{trials}", trials)
        asked.clear()
        assert cifar("compare", f"of-{trials}", "--format", form).code == 0
        counts.append(dict(asked))
    assert counts[0] == counts[1]


def test_runs_come_by_the_page_and_all_of_them(cifar, add_sweep, asked, monkeypatch):
    _, made = add_sweep("mine", 7)
    monkeypatch.setattr(queries, "PAGE", 3)
    assert [run.info.run_id for run in selection.select(store.connect(), ["mine"])] == made
    assert asked["search_runs"] == 3


def test_run_ids_are_looked_up_together(cifar, add_sweep, asked, monkeypatch):
    parent, made = add_sweep("mine", 3)
    _, others = add_sweep("other", 5, experiment="elsewhere")
    monkeypatch.setattr(selection, "MOST_IDS", 3)
    connected = store.connect()
    asked.clear()
    found = selection.select(connected, [*others, parent])
    assert {run.info.run_id for run in found} == {*others, *made}
    assert asked["search_runs"] == math.ceil(6 / 3) + 1
    chosen = selection.select(connected, [*others, parent], "params.activation = 'elu'")
    assert {run.info.run_id for run in chosen} == {*others[1::2], *made[1::2]}


def test_a_deleted_run_is_no_run(cifar, add_sweep, client):
    _, made = add_sweep("mine", 3)
    client().delete_run(made[1])
    with pytest.raises(ModelError, match=f"the run {made[1]} was deleted; restore it by `mlflow runs restore"):
        selection.select(store.connect(), made)


# A run's points at once, all but one run's, several runs' in two answers, and an answer that is cut off.
LIMITS = [{}, {"MOST_POINTS": 3}, {"MOST_RUNS": 2}, {"MOST_ROWS": 4}]


def assert_as_mlflow_tells(connected):
    """Runs with two, four and no points: read together as one by one."""
    client = MlflowClient(connected.uri)
    experiment_id = client.create_experiment("points")
    made = [client.create_run(experiment_id).info.run_id for _ in range(3)]
    client.log_batch(made[0], [Metric(METRIC, value, 0, step) for step, value in ((2, 5.0), (1, 4.0))])
    client.log_batch(made[1], [Metric(METRIC, float(step), 0, step) for step in (1, 2, 3, 4)])
    expected = {made[0]: [(1, 4.0), (2, 5.0)], made[1]: [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)], made[2]: []}
    for limits in LIMITS:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in limits.items():
                patch.setattr(metric_curves, name, value)
            assert metric_curves.read(connected, made, METRIC) == expected, limits
    client.log_metric(made[0], METRIC, math.nan, step=3)
    assert math.isnan(metric_curves.read(connected, made[:1], METRIC)[made[0]][-1][1])
    return made


def test_curves_are_what_mlflow_tells(cifar):
    assert_as_mlflow_tells(store.connect())


def test_curves_of_a_server_are_what_mlflow_tells(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    connected = store.connect()
    made = assert_as_mlflow_tells(connected)
    # All with one request.
    one_by_one = []
    monkeypatch.setattr(MlflowClient, "get_metric_history", lambda self, *which: one_by_one.append(which) or [])
    assert [len(points) for points in metric_curves.read(connected, made[:2], METRIC).values()] == [3, 4]
    assert not one_by_one
    # Of a server that knows no such request, one by one.
    monkeypatch.setattr(metric_curves, "ENDPOINT", "/api/2.0/mlflow/not-there")
    metric_curves.read(connected, made[:2], METRIC)
    assert one_by_one == [(made[0], METRIC), (made[1], METRIC)]
