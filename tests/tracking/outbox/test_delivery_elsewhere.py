"""To which store an outbox belongs: to the one in which its run is, wherever that lies, and to no other."""

import pytest
from outboxes import KEY, add_metric, runs_of, steps_of

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox import delivery
from cifar_mlflow.tracking.outbox.delivery import NotThisStore, deliver_all

NOWHERE = "f" * 32  # a run that no store has


@pytest.fixture
def outbox(opened):
    return opened()


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
