"""Taking an outbox to its store: all of it, with the effect of once, but for what the store refuses."""

import shutil
import sqlite3

import pytest
from outboxes import AT, KEY, add_metric, runs_of, steps_of

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import delivery
from cifar_mlflow.tracking.outbox.delivery import Delivery, deliver_all
from cifar_mlflow.tracking.outbox.log import Outbox


@pytest.fixture
def outbox(opened):
    return opened()


# --------------------------------------------------------------------------------------------------- all of it, once


def write_all(outbox):
    outbox.append("parameters", parameters={"epochs": "3"})
    for step in (1, 2):
        add_metric(outbox, step)
    outbox.append("tags", tags={"note": "x"})
    outbox.append("dataset", name="d", digest="0" * 8, source="s", profile={"images": 7}, context="training")
    (outbox.next_payload() / "a.txt").write_text("1")
    outbox.append("files")
    outbox.append("finish", status="KILLED", timestamp=AT + 9)


def assert_complete(store, run):
    points = store.client.get_metric_history(run.info.run_id, "a")
    assert [(point.step, point.value, point.timestamp) for point in points] == [(1, 0.5, AT + 1), (2, 1.0, AT + 2)]
    assert (run.info.run_name, run.info.start_time, run.info.end_time) == ("n", AT, AT + 9)
    assert (run.info.status, run.data.params) == ("KILLED", {"epochs": "3"})
    assert {"kind": "single", "note": "x", delivery.RUN_TAG: KEY}.items() <= run.data.tags.items()
    assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["d"]
    assert [file.path for file in store.client.list_artifacts(run.info.run_id)] == ["a.txt"]


def test_a_run_arrives_with_the_times_at_which_it_was_written(store, outbox):
    write_all(outbox)
    assert deliver_all(store, outbox) is None
    (run,) = runs_of(store)
    assert_complete(store, run)
    assert outbox.run_id == run.info.run_id
    assert outbox.close() == 0


def test_what_was_not_marked_is_delivered_again_with_the_effect_of_once(store, outbox, monkeypatch):
    write_all(outbox)
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "mark_delivered", lambda self, number: None)  # the process is killed before
        deliver_all(store, outbox)
    assert outbox.pending == 8
    deliver_all(store, outbox)
    (run,) = runs_of(store)
    assert_complete(store, run)
    assert outbox.pending == 0


def test_a_run_that_was_made_without_the_outbox_hearing_of_it_is_found(store, outbox):
    """The answer was lost, or the process killed before it was noted."""
    experiment_id = store.experiment_id("e")
    made = store.client.create_run(experiment_id, tags={delivery.RUN_TAG: KEY})
    add_metric(outbox)
    deliver_all(store, outbox)
    assert outbox.run_id == made.info.run_id
    assert [run.info.run_id for run in runs_of(store)] == [made.info.run_id]


def test_an_outbox_that_has_the_name_of_its_run_needs_no_search(store, opened):
    made = store.client.create_run(store.experiment_id("e"))
    outbox = opened(made.info.run_id)
    add_metric(outbox)
    deliver_all(store, outbox)
    assert outbox.run_id == made.info.run_id
    assert steps_of(store, made.info.run_id) == [1]


@pytest.mark.parametrize(("pause", "left"), [(-1.0, [3, 2, 1, 0]), (1e9, [3, 3, 3, 0])])
def test_what_has_arrived_is_noted_now_and_then_and_at_the_end(store, outbox, monkeypatch, pause, left):
    monkeypatch.setattr(delivery, "BETWEEN_MARKS", pause)
    for step in (1, 2):
        add_metric(outbox, step)
    going = Delivery(store, outbox)
    seen = []
    while record := going.next():
        if record.number == 0:
            going._marked_at = delivery.time.monotonic()  # as after a first mark
        seen.append(outbox.pending)
        going.deliver(record)
    assert [*seen, outbox.pending] == left


# ------------------------------------------------------------------------------------------------- what is refused


def test_what_the_store_refuses_is_set_aside_and_tried_again_the_next_time(store, outbox):
    outbox.append("tags", tags={"no $ign": "is allowed"})
    add_metric(outbox)
    for _ in range(2):
        deliver_all(store, outbox)
        assert (outbox.pending, outbox.waiting) == (0, 1)
        (reason,) = outbox.refused
        assert reason.startswith("tags: ")
        assert "no $ign" in reason
    assert steps_of(store, outbox.run_id) == [1]


def test_a_record_is_told_with_its_refusal(store, outbox):
    outbox.append("tags", tags={"no $ign": "is allowed"})
    going = Delivery(store, outbox)
    assert going.deliver(going.next()) is None
    assert "no $ign" in going.deliver(going.next())
    assert going.next() is None


def test_while_the_store_cannot_be_reached_nothing_is_refused(store, outbox, monkeypatch):
    deliver_all(store, outbox)
    add_metric(outbox)
    add_metric(outbox, 2)
    real, calls = store.client.log_batch, []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise TrackingError("no MLflow server answers")
        return real(*arguments, **options)

    monkeypatch.setattr(store.client, "log_batch", failing, raising=False)
    with pytest.raises(TrackingError, match="no MLflow server answers"):
        deliver_all(store, outbox)
    assert (outbox.pending, outbox.refused) == (1, [])
    deliver_all(store, outbox)
    assert steps_of(store, outbox.run_id) == [1, 2]


def test_files_that_are_gone_are_told(store, outbox):
    path = outbox.next_payload()
    outbox.append("files")
    shutil.rmtree(path)
    deliver_all(store, outbox)
    assert outbox.refused == [f"files: the files of write 1 are gone from {outbox.directory}"]


@pytest.mark.parametrize("content", [None, "", "[1", "metadata: 1", "flavors: {}", "\x00"])
def test_a_model_whose_files_are_damaged_is_told_and_the_rest_arrives(store, outbox, content):
    path = outbox.next_payload()
    if content is not None:
        (path / "MLmodel").write_text(content)
    outbox.append("model", metrics={}, timestamp=AT)
    add_metric(outbox)
    deliver_all(store, outbox)
    (refused,) = outbox.refused
    assert refused.startswith(f"model: the files of write 1 in {outbox.directory} are damaged (")
    assert steps_of(store, outbox.run_id) == [1]


def test_an_outbox_that_does_not_tell_its_run(store, outbox):
    with sqlite3.connect(outbox.directory / "outbox.sqlite") as tables:
        tables.execute("UPDATE records SET content = '{}'")
    add_metric(outbox)
    with pytest.raises(TrackingError, match=f"{KEY} does not tell what its run is: its first record is damaged"):
        deliver_all(store, outbox)
    assert runs_of(store) == []
