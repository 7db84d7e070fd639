"""How a run begins: as a new one, as that of `mlflow run`, as a child of the caller's; and what stops it before."""

from types import SimpleNamespace

import mlflow
import pytest

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.store import Store, connect
from cifar_mlflow.tracking.writing import recorder, ui_views
from cifar_mlflow.tracking.writing.recorder import Recorder


@pytest.fixture
def store(cifar):
    return connect()


def tags_of(store, run_id):
    return store.client.get_run(run_id).data.tags


def test_a_new_run_says_at_once_whose_it_is(store):
    started = Recorder.start(store, "e", "n", {"kind": "single"})
    run = store.client.get_run(started.run_id)
    assert (run.info.run_name, run.info.status, started.run_name) == ("n", "RUNNING", "n")
    assert store.client.get_experiment(started.experiment_id).name == "e"
    assert {"kind": "single", **processes.process_tags()}.items() <= run.data.tags.items()
    assert "mlflow.parentRunId" not in run.data.tags
    assert (started.url, dict(started.parameters)) == (None, {})


def test_it_is_a_child_of_the_callers_run(store):
    with mlflow.start_run() as mine:
        started = Recorder.start(store, "e", "n", {})
    assert tags_of(store, started.run_id)["mlflow.parentRunId"] == mine.info.run_id


@pytest.fixture
def of_mlflow_run(store):
    """The store under `mlflow run`, with the run that it has made."""

    def make(location=None):
        experiment_id = store.client.create_experiment("theirs", artifact_location=location)
        run = store.client.create_run(experiment_id, run_name="their name")
        store.client.log_param(run.info.run_id, "epochs", "3")
        return Store(store.client, store.uri, run.info.run_id)

    return make


def test_under_mlflow_run_it_is_the_run_that_is_there(of_mlflow_run):
    under = of_mlflow_run()
    started = Recorder.start(under, "e", "n", {"kind": "single"})
    assert (started.run_id, started.run_name) == (under.project_run_id, "their name")
    assert dict(started.parameters) == {"epochs": "3"}
    assert tags_of(under, started.run_id)["kind"] == "single"
    assert under.client.get_experiment_by_name("e") is None


def test_a_run_of_mlflow_run_that_has_ended_is_not_written_to(of_mlflow_run):
    under = of_mlflow_run()
    under.client.set_terminated(under.project_run_id, "KILLED")
    with pytest.raises(
        TrackingError, match=f"names the run {under.project_run_id}, which is KILLED; unset the variable"
    ):
        Recorder.start(under, "e", "n", {"kind": "single"})
    assert "kind" not in tags_of(under, under.project_run_id)


def test_where_artifacts_cannot_be_written_nothing_is_begun_but_a_job_needs_none(of_mlflow_run, store, runs):
    under = of_mlflow_run("file:///proc/nowhere")
    with pytest.raises(TrackingError, match="which cannot be written here"):
        Recorder.start(under, "e", "n", {"kind": "single"})
    recorder.mark_job(under)
    assert tags_of(under, under.project_run_id)["kind"] == "job"
    store.client.create_experiment("mine", artifact_location="file:///proc/nowhere")
    with pytest.raises(TrackingError, match="which cannot be written here"):
        Recorder.start(store, "mine", "n", {})
    assert len(runs()) == 1


def test_without_mlflow_run_there_is_no_job_to_mark(store, runs):
    recorder.mark_job(store)
    assert runs() == []


def test_a_server_that_is_none_of_mlflows_is_told(store, monkeypatch):
    answer = SimpleNamespace(info=SimpleNamespace(run_id=""))
    monkeypatch.setattr(store.client, "create_run", lambda *words, **more: answer, raising=False)
    with pytest.raises(TrackingError, match="does not answer as an MLflow server: its runs have no id"):
        Recorder.start(store, "e", "n", {})


def test_a_run_taken_up_again_is_running(store):
    started = Recorder.start(store, "e", "n", {})
    started.finish("FAILED")
    again = Recorder.reopen(store, started.run_id)
    assert (again.run_id, again.run_name, again.experiment_id) == (started.run_id, "n", started.experiment_id)
    assert store.client.get_run(started.run_id).info.status == "RUNNING"


def test_a_metric_without_a_step_is_at_the_beginning_and_has_the_time(store, monkeypatch):
    started = Recorder.start(store, "e", "n", {})
    monkeypatch.setattr(recorder, "time", SimpleNamespace(time=lambda: 12.3456))
    started.log_metrics({"a": 1.0})
    started.log_metrics({"a": 2.0}, step=1, timestamp=0)
    points = store.client.get_metric_history(started.run_id, "a")
    assert {point.step: point.timestamp for point in points} == {0: 12345, 1: 0}
    started.finish("FINISHED", 99)
    assert store.client.get_run(started.run_id).info.end_time == 99


def test_the_dataset_is_an_input_with_its_content(store):
    started = Recorder.start(store, "e", "n", {})
    started.log_dataset("d", "0" * 32, "/data/x.npz", {"train": 7}, "training")
    (given,) = store.client.get_run(started.run_id).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest, given.dataset.source) == ("d", "0" * 32, '{"uri": "/data/x.npz"}')
    assert (given.dataset.profile, [(tag.key, tag.value) for tag in given.tags]) == (
        '{"train": 7}',
        [("mlflow.data.context", "training")],
    )


def test_artifacts_whose_place_went_bad_are_told_by_their_place(store, work, monkeypatch):
    started = Recorder.start(store, "e", "n", {})

    def fail(*words):
        raise TrackingError("a summary")

    monkeypatch.setattr(store.client, "log_artifacts", fail, raising=False)
    with pytest.raises(TrackingError, match="a summary"):
        started.log_files({"a": b"1"})
    monkeypatch.setattr(recorder.queries, "check_artifact_location", lambda *words: fail_there())

    def fail_there():
        raise TrackingError("the place cannot be written")

    with pytest.raises(TrackingError, match="the place cannot be written"):
        started.log_files({"a": b"1"})


def test_the_parallel_coordinates_end_at_what_the_leaderboard_is_sorted_by():
    for on_all, metric in ((False, "best_val_accuracy"), (True, "epoch_test_accuracy")):
        (_, _, leaderboard), *_ = ui_views._views(["activation"], [], "a filter", "s", on_all)
        assert leaderboard["compareRunCharts"][0]["selectedMetrics"] == [metric]
        assert leaderboard["orderByKey"] == f"metrics.`{metric}`"


def test_a_view_opens_as_what_it_is(store):
    leaderboard = ui_views.view_url(store, "7", "cifar-mlflow.all.leaderboard")
    assert leaderboard.startswith(f"{ui_views.LOCAL_UI}/#/experiments/7/runs?viewStateShareKey=cifar-mlflow.all.leader")
    assert "compareRunsMode=TABLE" in leaderboard
    curves = ui_views.view_url(Store(store.client, "http://u:p@host/", None), "7", "cifar-mlflow.all.curves")
    assert curves.startswith("http://***@host/#/experiments/7/runs?")
    assert "compareRunsMode=CHART" in curves


def test_the_leaderboard_that_is_opened_first_is_the_latest(store, monkeypatch):
    experiment_id = store.experiment_id("e")
    assert ui_views.latest_leaderboard(store, experiment_id).endswith("runs?workflowType=machine_learning")
    for now, sweep in ((20.0, "late"), (10.0, "early")):
        monkeypatch.setattr(ui_views, "time", SimpleNamespace(time=lambda now=now: now))
        ui_views.publish_views(store, experiment_id, ["activation"], sweep=sweep)
    assert "cifar-mlflow.sweep.late.leaderboard" in ui_views.latest_leaderboard(store, experiment_id)
