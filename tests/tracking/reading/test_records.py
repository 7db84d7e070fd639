"""Runs read back as records, and which of them stands for a configuration and seed."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import mlflow.utils.rest_utils
import pytest
from mlflow.entities import Dataset, DatasetInput

from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.records import RunRecord
from cifar_mlflow.tracking.reading import metric_curves, runs, selection
from cifar_mlflow.tracking.writing import looks

NOWHERE = "f" * 32


def record_of(store, run_id, *metrics):
    (record,) = runs.to_records(store, [store.client.get_run(run_id)], metrics)
    return record


def test_a_run_is_read_as_it_was_written(store, training):
    run_id = training("FAILED", seed=7, learning_rate=0.5, metrics={"val_accuracy": 70.0, "system/cpu": 1.0})
    store.client.log_metric(run_id, "val_accuracy", 71.0, step=2)
    record = record_of(store, run_id, "val_accuracy", "val_loss")
    assert (record.run_id, record.name, record.status, record.kind) == (run_id, "digits-seed0", "FAILED", "single")
    assert (record.seed, record.parameters["learning_rate"], record.parameters["epochs"]) == (7, 0.5, 2)
    assert (record.metrics, record.curves) == ({"val_accuracy": 71.0}, {"val_accuracy": [(0, 70.0), (2, 71.0)]})
    assert (record.url, record.images, record.tags["dataset_digest"]) == (None, {}, "0123456789abcdef")
    assert record.tags[looks.TAG] == "0"


def test_its_minutes_are_those_between_start_and_end(store):
    started = 1_790_000_000_000
    run_id = store.client.create_run("0", start_time=started, tags={looks.TAG: "3"}).info.run_id
    assert record_of(store, run_id).minutes is None
    store.client.set_terminated(run_id, end_time=started + 90_000)
    record = record_of(store, run_id)
    assert (record.minutes, record.start_time) == (1.5, datetime.fromtimestamp(1_790_000_000, UTC))
    assert (record.parameters, record.seed, record.kind, record.tags[looks.TAG]) == ({}, 0, "single", "3")


@pytest.mark.parametrize(("seed", "read"), [("12", 12), ("'12'", 12), ("many", 0)])
def test_a_seed_that_is_no_number_is_none(store, seed, read):
    run_id = store.client.create_run("0", tags={"kind": "trial"}).info.run_id
    store.client.log_param(run_id, "seed", seed)
    record = record_of(store, run_id)
    assert (record.seed, record.kind) == (read, "trial")


@pytest.mark.parametrize(
    ("profiles", "images"),
    [
        ([{"train": 100, "validation": 20}], {"train": 100, "validation": 20}),
        ([{"num_rows": "ten", "test": 3}], {"test": 3}),
        ([{}, {"test": 3}], {"test": 3}),
        (["no JSON", [1], None, {"test": True, "train": 4}], {"train": 4}),
        ([None], {}),
    ],
)
def test_how_many_images_it_had(store, profiles, images):
    run_id = store.client.create_run("0").info.run_id
    for number, profile in enumerate(profiles):
        text = profile if profile is None or isinstance(profile, str) else json.dumps(profile)
        given = DatasetInput(Dataset(f"d{number}", str(number), "local", "{}", profile=text))
        store.client.log_inputs(run_id, [given])
    assert record_of(store, run_id).images == images


# ------------------------------------------------------------------------------------------------ which one stands for


def record(run_id, status="FINISHED", fingerprint="same", **tags):
    return RunRecord(run_id, run_id, status, 0, tags={"run_fingerprint": fingerprint, **tags})


@pytest.mark.parametrize(
    ("statuses", "kept"),
    [
        (["FAILED", "FINISHED", "KILLED"], 1),
        (["KILLED", "FAILED"], 1),
        (["RUNNING", "KILLED"], 1),
        (["SCHEDULED", "RUNNING"], 0),
        (["FINISHED", "FINISHED"], 0),
        (["KILLED", "pruned", "FAILED"], 1),
        (["pruned", "FINISHED"], 1),
    ],
)
def test_a_run_that_broke_off_gives_way_to_its_repetition(statuses, kept):
    records = [
        record(str(number), "KILLED", pruned="true") if status == "pruned" else record(str(number), status)
        for number, status in enumerate(statuses)
    ]
    assert [each.run_id for each in runs.without_superseded(records)] == [str(kept)]


def test_other_configurations_and_runs_without_a_fingerprint_stand_for_themselves():
    records = [
        record("1"),
        record("2", fingerprint="other"),
        RunRecord("3", "", "FAILED", 0),
        RunRecord("4", "", "FAILED", 0),
    ]
    assert [each.run_id for each in runs.without_superseded(records)] == ["1", "2", "3", "4"]


# ----------------------------------------------------------------------------------------------------------- found


def test_runs_are_found_the_oldest_first(store):
    ids = [store.client.create_run("0", start_time=time).info.run_id for time in (300, 100, 200)]
    found = [run.info.run_id for run in runs.search(store, ["0"], "attributes.status = 'RUNNING'")]
    assert found == [ids[1], ids[2], ids[0]]
    assert runs.search(store, [], "attributes.status = 'RUNNING'") == []


def test_an_artifact_is_read_and_one_that_is_not_there_is_none(store, work):
    run_id = store.client.create_run("0").info.run_id
    (work / "a.txt").write_bytes(b"\x00\xff")
    store.client.log_artifact(run_id, str(work / "a.txt"))
    assert (runs.read_artifact(store, run_id, "a.txt"), runs.read_artifact(store, run_id, "b")) == (b"\x00\xff", None)


def test_of_two_values_at_one_epoch_the_later_counts(store):
    run_id = store.client.create_run("0").info.run_id
    for at, value in ((5, 1.0), (3, 2.0), (9, 3.0)):
        store.client.log_metric(run_id, "a", value, timestamp=at, step=1)
    store.client.log_metric(run_id, "a", 4.0, timestamp=1, step=2)
    assert metric_curves.read_run(store, run_id, ["a", "none"]) == {"a": {1: 3.0, 2: 4.0}}


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_server_that_knows_no_request_for_many_runs_is_asked_for_each(store, monkeypatch, status):
    """A server of an older version, or of somebody else."""
    run_id = store.client.create_run("0").info.run_id
    store.client.log_metric(run_id, "a", 1.0, step=3)
    points = [{"run_id": run_id, "step": "7", "value": 9}]
    answer = SimpleNamespace(status_code=status, json=lambda: {"metrics": points})
    monkeypatch.setattr(mlflow.utils.rest_utils, "http_request", lambda *words, **more: answer)
    server = type(store)(store.client, "http://host", None)
    assert metric_curves.read(server, [run_id], "a") == {run_id: [(7, 9.0)] if status == 200 else [(3, 1.0)]}


# ------------------------------------------------------------------------------------------------- words of a command


def test_words_name_runs_experiments_and_sweeps(store, training):
    one = training(experiment="one")
    two = training(experiment="two")
    parent = training(experiment="two", tags={"kind": "sweep", "sweep": "mine"})
    trials = [
        training(experiment="two", seed=n, tags={"kind": "trial", "sweep": "mine", "sweep_id": parent}) for n in (1, 2)
    ]
    job = training(experiment="two", tags={"kind": "job"})

    def chosen(*words, condition=None):
        return [run.info.run_id for run in selection.select(store, words, condition)]

    assert chosen() == [one, two, *trials]
    assert chosen("two") == [two, *trials]
    assert chosen("mine") == chosen(parent) == trials
    assert chosen(trials[1], "mine", one) == [one, *trials]
    assert chosen("two", condition="params.seed = '2'") == chosen(parent, condition="params.seed = '2'") == trials[1:]
    assert chosen(job) == [job]
    for word, told in (
        ("nothing", r"'nothing' names no run, no experiment and no sweep in .* \(experiments: Default, one, two\)"),
        ("it's", "names no run, no experiment"),
        (NOWHERE, f"there is no run {NOWHERE}"),
    ):
        with pytest.raises(ModelError, match=told):
            chosen(word)
    with pytest.raises(ModelError, match="no sweep that the filter lets through"):
        chosen("mine", condition="params.seed = '9'")


def test_a_filter_that_mlflow_refuses_is_told(store, training):
    training(experiment="one")
    with pytest.raises(ConfigurationError, match="--filter: MLflow refuses 'no filter'"):
        selection.select(store, ["one"], "no filter")
