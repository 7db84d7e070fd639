"""Taking an outbox to a store: all of it, with the effect of once, and to no store but its own."""

import os
import shutil
import sqlite3

import pytest
from support import RUN

from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import delivery
from cifar_mlflow.tracking.outbox.delivery import Delivery, NotThisStore, deliver_all
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.store import connect

KEY = "ab" * 16
NOWHERE = "f" * 32  # a run that no store has
AT = RUN["timestamp"]


@pytest.fixture
def connect_to(work, empty_store):
    """Connects to a store in the current directory, which is made as a copy of `like`, else empty."""

    def to(name, like=None):
        shutil.copy(work / f"{like}.db" if like else empty_store, work / f"{name}.db")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{work}/{name}.db"
        return connect()

    return to


@pytest.fixture
def store(connect_to):
    return connect_to("home")


@pytest.fixture
def opened():
    """Makes outboxes of runs that began without a store."""
    made = []

    def make(name=KEY, **changes):
        outbox = Outbox(spool_directory() / name, new=True)
        made.append(outbox)
        outbox.append("run", **RUN | changes)
        return outbox

    yield make
    for outbox in made:
        outbox.close()


@pytest.fixture
def outbox(opened):
    return opened()


def add_metric(outbox, step=1):
    outbox.append("metrics", metrics={"a": step / 2}, step=step, timestamp=AT + step)


def runs_of(store):
    experiments = store.client.search_experiments()
    return store.client.search_runs([found.experiment_id for found in experiments])


def steps_of(store, run_id):
    return [point.step for point in store.client.get_metric_history(run_id, "a")]


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


# ------------------------------------------------------------------------------------------------------ which store


def in_part(store, outbox):
    """Delivers what is there, and writes on."""
    deliver_all(store, outbox)
    add_metric(outbox)


def test_a_run_of_another_store_waits_for_that_one(store, connect_to, outbox):
    in_part(store, outbox)
    away = connect_to("away")
    expected = f"the run {outbox.run_id} is not in {away.uri}. It was recorded in {store.uri}: set MLFLOW_TRACKING_URI"
    with pytest.raises(NotThisStore) as raised:
        deliver_all(away, outbox)
    assert str(raised.value).startswith(expected)
    assert str(raised.value).endswith("sync --to-this-store")
    assert (runs_of(away), outbox.pending, outbox.refused) == ([], 1, [])
    deliver_all(store, outbox)
    assert steps_of(store, outbox.run_id) == [1]


def test_a_run_is_made_anew_in_another_store_where_that_is_asked_for(store, connect_to, outbox):
    in_part(store, outbox)
    before, away = outbox.run_id, connect_to("away")
    told = deliver_all(away, outbox, to_this_store=True)
    assert told == f"made anew in {away.uri}; what {store.uri} has of it stays there as run {before}"
    (run,) = runs_of(away)
    assert (run.info.run_name, steps_of(away, run.info.run_id), outbox.run_id) == ("n", [1], run.info.run_id)
    # From now on it belongs there.
    add_metric(outbox, 2)
    with pytest.raises(NotThisStore, match=r"It was recorded in sqlite:///.*away\.db"):
        deliver_all(store, outbox)


def test_a_run_that_was_resumed_is_told_to_be_incomplete_where_it_is_made_anew(store, connect_to, opened):
    made = store.client.create_run(store.experiment_id("e"))
    outbox = opened(f"{made.info.run_id}-2")
    outbox.note("run_id", made.info.run_id)
    told = deliver_all(connect_to("away"), outbox, to_this_store=True)
    assert f"what the store before has of it stays there as run {made.info.run_id}" in told
    assert told.endswith("and only there is what it had recorded before it was resumed")


def test_a_store_at_another_path_is_the_same(store, connect_to, outbox):
    in_part(store, outbox)
    moved = connect_to("moved", like="home")
    deliver_all(moved, outbox)
    assert steps_of(moved, outbox.run_id) == [1]


@pytest.mark.parametrize("place", ["home", "moved"])
def test_a_run_that_its_store_has_no_more(store, connect_to, outbox, place):
    in_part(store, outbox)
    outbox.note("run_id", NOWHERE)
    here = connect_to("moved", like="home") if place == "moved" else store
    with pytest.raises(NotThisStore, match=f"the run {NOWHERE} was recorded in .*{place}.db, but is there no more"):
        deliver_all(here, outbox)
    assert "made anew" in deliver_all(here, outbox, to_this_store=True)
    assert steps_of(here, outbox.run_id) == [1]


def test_a_run_whose_making_was_begun_in_a_store_is_made_in_no_other(store, connect_to, outbox, monkeypatch):
    """The store is noted first: the answer to the request that makes the run may be lost."""

    def lost(*arguments, **options):
        raise TrackingError("no MLflow server answers")

    with monkeypatch.context() as patch:
        patch.setattr(store.client, "create_run", lost, raising=False)
        with pytest.raises(TrackingError, match="no MLflow server answers"):
            deliver_all(store, outbox)
    away = connect_to("away")
    away.experiment_id("e")
    with pytest.raises(NotThisStore, match=rf"the run n \({KEY}\) is not in .*away.db. It was recorded in .*home.db"):
        deliver_all(away, outbox)
    assert runs_of(away) == []
    deliver_all(store, outbox)
    assert [run.info.run_id for run in runs_of(store)] == [outbox.run_id]


def test_a_trial_goes_where_its_sweep_is(store, connect_to, opened):
    sweep = store.client.create_run(store.experiment_id("e"))
    outbox = opened(tags={"kind": "trial", delivery.PARENT_TAG: sweep.info.run_id})
    away = connect_to("away")
    with pytest.raises(NotThisStore, match=rf"the run {sweep.info.run_id}, to which the run n \({KEY}\) belongs, is"):
        deliver_all(away, outbox)
    assert runs_of(away) == []
    deliver_all(store, outbox)
    assert {run.info.run_id for run in runs_of(store)} == {sweep.info.run_id, outbox.run_id}


def test_a_run_that_was_deleted_can_be_restored(store, outbox):
    in_part(store, outbox)
    store.client.delete_run(outbox.run_id)
    with pytest.raises(TrackingError) as raised:
        deliver_all(store, outbox)
    assert f"`mlflow runs restore --run-id {outbox.run_id}`" in str(raised.value)
    assert f"rm -r {outbox.directory}" in str(raised.value)
    store.client.restore_run(outbox.run_id)
    deliver_all(store, outbox)
    assert steps_of(store, outbox.run_id) == [1]


def test_a_run_whose_experiment_was_deleted(store, outbox):
    store.client.delete_experiment(store.experiment_id("e"))
    with pytest.raises(TrackingError, match=r"'e' was deleted; restore it .* or if the run n \(") as raised:
        deliver_all(store, outbox)
    assert f"is of no use: rm -r {outbox.directory}" in str(raised.value)
