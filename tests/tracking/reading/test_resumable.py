"""Which runs can be resumed, what of them the store has, and what waits on disk for them."""

import pytest
from mlflow.entities import Dataset, DatasetInput

from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.tracking.outbox import spooled_recorder
from cifar_mlflow.tracking.outbox.delivery import RUN_TAG
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.reading import resumable

KEY = "ab" * 16


@pytest.fixture(autouse=True)
def _no_delivery(monkeypatch):
    """What is written stays on disk."""

    class Worker:
        def __init__(self, store, outbox):
            self.outbox, self.refusal, self.trouble = outbox, None, None

        def wake(self):
            pass

    monkeypatch.setattr(spooled_recorder, "DeliveryWorker", Worker)


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED", "RUNNING"])
def test_a_run_that_broke_off_can_be_resumed(store, training, status):
    run_id = training(status, seed=5)
    found = resumable.find(store, run_id)
    assert (found.run_id, found.status, found.config.seed, found.offline_id) == (run_id, status, 5, "")


def test_a_run_that_began_offline_has_two_ids(store, training):
    run_id = training("KILLED", tags={RUN_TAG: KEY})
    assert [resumable.find(store, each).run_id for each in (run_id, KEY)] == [run_id, run_id]
    assert resumable.find(store, KEY).offline_id == KEY


def test_a_run_that_is_not_there(store, training):
    training("KILLED", tags={RUN_TAG: KEY})
    with pytest.raises(ModelError, match=f"there is no run {'0' * 32} in "):
        resumable.find(store, "0" * 32)


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ({"kind": "sweep"}, "is the parent of a sweep"),
        ({"kind": "job"}, "was made by `mlflow run` for another command"),
        ({"kind": "trial", "sweep": "mine"}, "belongs to the sweep mine, which repeats it when it is started again"),
        ({"reproduces": KEY}, f"was made by `reproduce`; start that again: cifar-mlflow reproduce {KEY}"),
        ({"failure_type": "Diverged", "failure": "the loss is nan"},
         "failed because the loss is nan. It would fail again; start another one"),
        ({"host": None}, r"was not recorded by cifar-mlflow, or .*: it has no tag host\. Start another one"),
    ],
)  # fmt: skip
def test_what_cannot_be_resumed_says_why(store, training, tags, told):
    run_id = training("FAILED", tags=tags)
    with pytest.raises(ModelError, match=f"the run {run_id} .*{told}"):
        resumable.find(store, run_id)


def test_a_failure_of_another_kind_can_be_resumed(store, training):
    run_id = training("FAILED", tags={"failure_type": "TrainingError", "failure": "memory is short"})
    assert resumable.find(store, run_id).tags["failure"] == "memory is short"


def test_a_run_without_its_parameters_cannot_be_resumed(store):
    tags = {"kind": "single", **dict.fromkeys(resumable.NEEDED, "1")}
    run_id = store.client.create_run(store.experiment_id("e"), tags=tags).info.run_id
    with pytest.raises(ModelError, match=r"the run \w+ \(RUNNING\) was not recorded .*: it has no parameter "):
        resumable.find(store, run_id)


def test_a_deleted_run_can_be_restored(store, training):
    run_id = training("KILLED")
    store.client.delete_run(run_id)
    with pytest.raises(
        ModelError, match=f"the run {run_id} was deleted; restore it with `mlflow runs restore --run-id"
    ):
        resumable.find(store, run_id)


def test_a_run_in_training_is_not_resumed(store, training):
    run_id = training("RUNNING", alive=True)
    with pytest.raises(TrackingError, match=f"the run {run_id} is being trained by process"):
        resumable.find(store, run_id)


# --------------------------------------------------------------------------------------------- what the store has


def test_what_the_store_has_is_recorded(store, training, logged):
    run_id = training("KILLED")
    recorded = resumable.find(store, run_id).recorded
    assert (recorded.steps, recorded.models, recorded.dataset, recorded.samples) == ({}, {}, False, 0)
    for step in (1, 2, 2):
        store.client.log_metric(run_id, "val_accuracy", 70.0, step=step)
    for step in (0, 1, 2, 3):
        for name in ("cpu", "memory"):
            store.client.log_metric(run_id, f"system/{name}", 1.0, step=step)
    last = logged(run_id)
    logged(run_id, "best", ready=False)
    store.client.log_inputs(run_id, [DatasetInput(Dataset("d", "0", "local", "{}"))])
    recorded = resumable.find(store, run_id).recorded
    assert (recorded.steps, recorded.models) == ({"val_accuracy": frozenset({1, 2})}, {"last": last})
    assert (recorded.dataset, recorded.samples) == (True, 4)


def test_taken_up_it_runs_again_without_what_was_left_half_done(store, training, logged):
    failed = {"failure": "memory is short", "failure_type": "TrainingError"}
    run_id = training("FAILED", tags=failed)
    kept, begun = logged(run_id), logged(run_id, "best", ready=False)
    for times in (1, 2):
        again = resumable.take_up(store, resumable.find(store, run_id), {"threads_used": "2"})
        run = store.client.get_run(run_id)
        assert (run.info.status, run.data.tags["resumed"], run.data.tags["threads_used"]) == (
            "RUNNING",
            str(times),
            "2",
        )
        assert failed.keys().isdisjoint(run.data.tags)
        assert (again.run_id, again.directory.name, again.experiment) == (run_id, f"{run_id}-{times}", "digits")
        assert again.recorded.models == {"last": kept}
        again._outbox.close()
        store.client.set_terminated(run_id, "KILLED")
    models = store.client.search_logged_models([run.info.experiment_id])
    assert {model.model_id for model in models} == {kept}
    assert begun != kept


# --------------------------------------------------------------------------------------------------- what waits on disk


def waiting(name, run_id=None, *records):
    outbox = Outbox(spool_directory() / name, new=True)
    outbox.append("run", experiment="digits", name="n", tags={}, timestamp=1)
    if run_id:
        outbox.note("run_id", run_id)
    for step, (kind, values) in enumerate(records, 1):
        outbox.append(kind, **values | ({"step": step, "timestamp": step} if kind == "metrics" else {}))
    outbox.close()


def test_what_waits_is_delivered_of_this_run_alone(store, training):
    run_id = training("KILLED")
    waiting(run_id, run_id, ("metrics", {"metrics": {"a": 1.0}}), ("metrics", {"metrics": {"a": 2.0}}))
    waiting(f"{run_id}-1", run_id, ("tags", {"tags": {"note": "x"}}), ("tags", {"tags": {"no $ign": "y"}}))
    waiting(KEY, None, ("tags", {"tags": {"note": "of another"}}))
    count, refused = resumable.deliver_waiting(store, run_id)
    assert (count, len(refused), "no $ign" in refused[0]) == (5, 1, True)
    run = store.client.get_run(run_id)
    assert ([point.step for point in store.client.get_metric_history(run_id, "a")], run.data.tags["note"]) == (
        [1, 2],
        "x",
    )
    assert sorted(path.name for path in spool_directory().iterdir()) == sorted([f"{run_id}-1", KEY])
    # One that never reached a store goes by its own name.
    assert resumable.deliver_waiting(store, KEY) == (2, [])
    assert resumable.deliver_waiting(store, "0" * 32) == (0, [])


def test_what_is_being_written_is_not_delivered(store, training):
    run_id = training("KILLED")
    held = Outbox(spool_directory() / run_id, new=True)
    with pytest.raises(TrackingError, match=f"the run {run_id} is being trained by another process here; wait for it"):
        resumable.deliver_waiting(store, run_id)
    held.close()
