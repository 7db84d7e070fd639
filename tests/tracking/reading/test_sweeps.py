"""A sweep in the store: which start of it counts, whose runs it has, and what is closed."""

import pytest
import yaml

from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import sweeps
from cifar_mlflow.tracking.store import Store

ELSEWHERE = {"host": "another-machine", "boot_id": "of another machine", "machine_id": "another"}


@pytest.fixture
def parent(store, training):
    """Makes the parent of a sweep `mine`."""

    def make(status="FINISHED", tags=(), **options):
        return training(status, tags={"kind": "sweep", "sweep": "mine", **dict(tags)}, **options)

    return make


@pytest.fixture
def trial(training):
    def make(sweep_id, status="FINISHED", tags=(), **options):
        return training(status, tags={"kind": "trial", "sweep_id": sweep_id, **dict(tags)}, **options)

    return make


@pytest.fixture
def experiment_id(store):
    return store.experiment_id("digits")


def tags_of(store, run_id):
    return store.client.get_run(run_id).data.tags


def status_of(store, run_id):
    return store.client.get_run(run_id).info.status


# ------------------------------------------------------------------------------------------------------- the winner


def test_the_winner_is_found_by_the_name_and_by_the_run(store, parent):
    run_id = parent(tags={sweeps.WINNER_TAG: "the winner"})
    assert sweeps.winner(store, "mine") == sweeps.winner(store, run_id) == "the winner"


@pytest.mark.parametrize("name", ["another", "it's", "", "f" * 32])
def test_a_sweep_that_is_not_there(store, parent, name):
    parent(tags={sweeps.WINNER_TAG: "w"})
    with pytest.raises(ModelError, match="there is no sweep"):
        sweeps.winner(store, name)


def test_of_several_sweeps_of_a_name_the_run_says_which(store, parent):
    ids = [parent(tags={sweeps.WINNER_TAG: name}, experiment=name) for name in ("one", "two")]
    with pytest.raises(ModelError) as raised:
        sweeps.winner(store, "mine")
    assert str(raised.value) == f"several sweeps are called 'mine'; give the run id of one: {', '.join(ids)}"
    assert [sweeps.winner(store, run_id) for run_id in ids] == ["one", "two"]


def test_a_sweep_that_was_started_anew_names_its_successor(store, parent):
    old = parent(tags={sweeps.WINNER_TAG: "old", "superseded_by": "the next"})
    parent(tags={sweeps.WINNER_TAG: "new"})
    assert sweeps.winner(store, "mine") == "new"
    with pytest.raises(
        ModelError, match=f"the sweep '{old}' was started anew; give the run id of that start: the next"
    ):
        sweeps.winner(store, old)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("RUNNING", "is RUNNING: it has a winner when it ends"),
        ("KILLED", "is KILLED: it has a winner when `cifar-mlflow sweep` has taken it to its end"),
    ],
)
def test_before_its_end_a_sweep_has_no_winner(store, parent, status, told):
    parent(status, tags={sweeps.WINNER_TAG: "of an earlier start"})
    with pytest.raises(ModelError, match=told):
        sweeps.winner(store, "mine")


def test_a_sweep_may_have_no_winner(store, parent):
    parent()
    with pytest.raises(ModelError, match="the sweep 'mine' has no winner"):
        sweeps.winner(store, "mine")


# --------------------------------------------------------------------------------------------------- an earlier start


def test_the_latest_start_that_was_not_superseded_is_found_with_its_spec(store, parent, experiment_id, work):
    assert sweeps.find_sweep(store, experiment_id, "mine") is None
    first = parent("KILLED", tags={"sweep_id": "of the first", "superseded_by": "x"})
    second = parent("FAILED", tags={"sweep_id": "of the first"})
    found = sweeps.find_sweep(store, experiment_id, "mine")
    assert (found.parent_id, found.sweep_id, found.status, found.spec) == (second, "of the first", "FAILED", None)
    assert found.tags["sweep_id"] == "of the first"
    (work / sweeps.SPEC_FILE).write_text(yaml.safe_dump({"name": "mine"}))
    store.client.log_artifact(second, str(work / sweeps.SPEC_FILE))
    third = parent("FAILED", experiment="elsewhere")
    assert sweeps.find_sweep(store, experiment_id, "mine").spec == {"name": "mine"}
    assert sweeps.find_sweep(store, store.experiment_id("elsewhere"), "mine").sweep_id == third
    assert first != second
    later = parent("KILLED")
    assert sweeps.find_sweep(store, experiment_id, "mine").parent_id == later


def test_a_new_sweep_is_known_by_the_run_of_its_parent(store, experiment_id):
    recorder, sweep_id = sweeps.start_parent(store, "digits", "mine", None)
    assert recorder.run_id == sweep_id
    tags = tags_of(store, sweep_id)
    assert {"kind": "sweep", "sweep": "mine", "sweep_id": sweep_id, **processes.process_tags()}.items() <= tags.items()
    assert (recorder.experiment_id, status_of(store, sweep_id)) == (experiment_id, "RUNNING")


def test_a_sweep_that_ended_is_taken_up_in_the_same_run(store, parent, experiment_id):
    run_id = parent("FAILED", tags={"sweep_id": "of the first"})
    earlier = sweeps.find_sweep(store, experiment_id, "mine")
    recorder, sweep_id = sweeps.start_parent(store, "digits", "mine", earlier)
    assert (recorder.run_id, sweep_id, status_of(store, run_id)) == (run_id, "of the first", "RUNNING")
    assert "superseded_by" not in tags_of(store, run_id)
    assert tags_of(store, run_id)["process_id"] == processes.process_tags()["process_id"]


@pytest.mark.parametrize(("status", "ended"), [("RUNNING", "KILLED"), ("FAILED", "FAILED")])
def test_under_mlflow_run_the_new_run_takes_over_the_children(store, parent, trial, experiment_id, status, ended):
    before = parent(status)
    child, other = trial(before), trial("another sweep")
    own = store.client.create_run(experiment_id).info.run_id
    under = Store(store.client, store.uri, own)
    recorder, sweep_id = sweeps.start_parent(under, "digits", "mine", sweeps.find_sweep(store, experiment_id, "mine"))
    assert (recorder.run_id, sweep_id) == (own, before)
    assert (tags_of(store, before)["superseded_by"], status_of(store, before)) == (own, ended)
    assert tags_of(store, child)["mlflow.parentRunId"] == own
    assert "mlflow.parentRunId" not in tags_of(store, other)


def test_a_sweep_of_a_living_process_is_not_started_twice(store, parent, experiment_id):
    run_id = parent("RUNNING", alive=True)
    earlier = sweeps.find_sweep(store, experiment_id, "mine")
    with pytest.raises(TrackingError, match=rf"the sweep mine \(run {run_id}\) is being trained by process"):
        sweeps.start_parent(store, "digits", "mine", earlier)
    store.client.set_terminated(run_id, "KILLED")
    sweeps.start_parent(store, "digits", "mine", sweeps.find_sweep(store, experiment_id, "mine"))


# ------------------------------------------------------------------------------------------------------ its children


def test_children_are_the_trials_of_the_sweep(store, parent, trial, training, experiment_id):
    run_id = parent()
    done, running = trial(run_id), trial(run_id, "RUNNING")
    trial("another")
    training(tags={"sweep_id": run_id})
    found = [run.info.run_id for run in sweeps.children(store, experiment_id, run_id)]
    assert found == [done, running]
    assert [run.info.run_id for run in sweeps.children(store, experiment_id, run_id, "RUNNING")] == [running]


def test_lost_runs_are_closed_and_living_ones_returned(store, trial, experiment_id):
    gone, alive = trial("s", "RUNNING"), trial("s", "RUNNING", alive=True)
    far = trial("s", "RUNNING", tags=ELSEWHERE)
    left = sweeps.close_lost(store, experiment_id, "s", "its process is gone", "FAILED")
    assert [run.info.run_id for run in left] == [alive]
    assert [status_of(store, run_id) for run_id in (gone, alive, far)] == ["FAILED", "RUNNING", "RUNNING"]
    assert tags_of(store, gone)["failure"] == "its process is gone"


def test_workers_have_time_to_close_their_runs(store, trial, experiment_id, monkeypatch):
    run_id, told = trial("s", "RUNNING", alive=True), []

    def sleep(seconds):
        if len(slept) == 2:
            store.client.set_terminated(run_id, "KILLED")
        slept.append(seconds)

    slept = []
    monkeypatch.setattr(sweeps.time, "sleep", sleep)
    sweeps.close_abandoned(store, experiment_id, "s", lambda: told.append(1))
    assert (len(slept), told) == (3, [1])
    sweeps.close_abandoned(store, experiment_id, "s", lambda: told.append(2))
    assert told == [1]


def test_a_worker_that_goes_on_is_named_after_a_minute(store, trial, experiment_id, monkeypatch):
    trial("s", "RUNNING", alive=True)
    now = [1000.0]
    monkeypatch.setattr(sweeps.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sweeps.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 25))
    number = processes.process_tags()["process_id"]
    with pytest.raises(TrackingError, match=f"are still being trained by process {number}; stop it first"):
        sweeps.close_abandoned(store, experiment_id, "s")
    assert now[0] == 1075.0  # the first look after a minute
