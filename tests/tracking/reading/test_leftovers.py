"""What doctor finds in a store: each kind told with its remedy, put right where that is safe, and nothing else."""

import os
import subprocess
import sys
import time

import pytest

from cifar_mlflow.directories import spool_directory
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.reading import leftovers
from cifar_mlflow.tracking.registry import aliases, lease, versions
from cifar_mlflow.tracking.writing import digests

ELSEWHERE = {"host": "another-machine", "boot_id": "of another machine", "machine_id": "another"}


def texts(findings):
    return [finding.text for finding in findings]


def status_of(store, run_id):
    return store.client.get_run(run_id).info.status


def waiting(run_id, *records):
    """An outbox of the run, which stays open."""
    outbox = Outbox(spool_directory() / run_id, new=True)
    outbox.append("run", experiment="digits", name="n", tags={}, timestamp=1)
    outbox.note("run_id", run_id)
    return outbox


# ------------------------------------------------------------------------------------------------- runs left RUNNING


@pytest.fixture
def later(monkeypatch):
    """Moves this machine's clock on."""
    real = time.time

    def move(seconds):
        monkeypatch.setattr(leftovers.time, "time", lambda: real() + seconds)

    return move


def test_a_run_whose_process_is_gone_is_closed(store, training):
    run_id = training("RUNNING", experiment="mine")
    training("RUNNING", alive=True)
    training("FINISHED")
    (found,) = leftovers.left_running(store)
    assert (found.severity, found.remedy) == ("warning", leftovers.FIX)
    assert found.text.startswith(f"run {run_id} (digits-seed0, single, in mine) is RUNNING since 20")
    assert found.text.endswith("UTC, by process 1 of this machine, which is gone")
    assert (found.fix(), status_of(store, run_id)) == ("closed as KILLED", "KILLED")
    assert store.client.get_run(run_id).data.tags["failure"] == leftovers.REASON
    assert (list(leftovers.left_running(store)), found.fix()) == ([], "it is KILLED by now")


@pytest.mark.parametrize(("seconds", "told"), [(leftovers.LONG - 60, False), (leftovers.LONG + 60, True)])
def test_a_run_of_another_machine_is_only_told_of_after_a_day(store, training, later, seconds, told):
    run_id = training("RUNNING", tags=ELSEWHERE)
    later(seconds)
    found = list(leftovers.left_running(store))
    assert [each.severity for each in found] == ["note"] * told
    if told:
        assert found[0].text.endswith("by process 1 on another-machine")
        assert "if that process is gone: python -c" in found[0].remedy
        assert (run_id in found[0].remedy, found[0].fix) == (True, None)


def test_a_run_whose_writes_wait_here_is_this_machine_s(store, training):
    run_id = training("RUNNING", tags=dict.fromkeys(("host", "process_id"), None))
    outbox = waiting(run_id)
    assert list(leftovers.left_running(store)) == []
    outbox.close()
    (found,) = leftovers.left_running(store)
    assert found.text.endswith("by a process of this machine that is gone")
    with pytest.raises(TrackingError, match="its last writes could not be delivered, so it is left as it is"):
        found.fix()
    assert status_of(store, run_id) == "RUNNING"


@pytest.fixture
def of_mlflow_run(store):
    """A run that `mlflow run` has made, and whose command never said where it runs."""
    tags = {"mlflow.project.entryPoint": "main"}
    return store.client.create_run(store.experiment_id("digits"), tags=tags, run_name="theirs").info.run_id


@pytest.mark.parametrize(("seconds", "told"), [(leftovers.SETTLED - 60, False), (leftovers.SETTLED + 60, True)])
def test_a_run_that_mlflow_run_made_is_told_of_after_minutes(store, of_mlflow_run, later, seconds, told):
    later(seconds)
    found = list(leftovers.left_running(store))
    assert [each.severity for each in found] == ["warning"] * told
    if told:
        assert f"run {of_mlflow_run} (theirs, no kind, in digits)" in found[0].text
        assert found[0].text.endswith("`mlflow run` made it, and its command never said where it runs")
        assert (found[0].remedy.startswith("if no process is at work on it: "), found[0].fix) == (True, None)


def test_a_run_for_which_a_process_was_started_is_left_alone(store, of_mlflow_run, later):
    later(leftovers.SETTLED + 60)
    command = [sys.executable, "-c", "print('ready', flush=True); input()"]
    environment = {**os.environ, "MLFLOW_RUN_ID": of_mlflow_run}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        process.stdout.readline()
        assert list(leftovers.left_running(store)) == []
        process.communicate("\n")
    assert len(list(leftovers.left_running(store))) == 1


def test_a_run_of_another_program_is_none_of_ours(store, later):
    store.client.create_run(store.experiment_id("digits"), tags={"theirs": "x"})
    later(leftovers.LONG + 60)
    assert list(leftovers.left_running(store)) == []


# ------------------------------------------------------------------------------------------------ models and artifacts


@pytest.mark.parametrize(
    ("status", "alive", "told"),
    [("FINISHED", False, True), ("RUNNING", False, True), ("RUNNING", True, False), ("KILLED", True, True)],
)
def test_a_model_that_was_begun_by_a_run_that_is_over_is_given_up(store, training, logged, status, alive, told):
    run_id = training(status, alive=alive)
    logged(run_id)
    begun = logged(run_id, "best", ready=False)
    found = list(leftovers.incomplete_models(store))
    assert texts(found) == [f"model {begun} (net) of run {run_id} was begun and never completed"] * told
    if told:
        assert found[0].fix() == "marked as FAILED"
        assert str(store.client.get_logged_model(begun).status) == "FAILED"
        assert (list(leftovers.incomplete_models(store)), found[0].fix()) == ([], "it is FAILED by now")


def test_a_model_is_left_to_a_sync_that_is_at_work(store, training, logged):
    run_id = training("FINISHED")
    logged(run_id, ready=False)
    logged(ready=False)  # of no run: nobody knows whose it is
    outbox = waiting(run_id)
    assert list(leftovers.incomplete_models(store)) == []
    outbox.close()
    (found,) = leftovers.incomplete_models(store)
    with pytest.raises(TrackingError, match="the writes of its run could not be delivered, so it is left as it is"):
        found.fix()


def test_a_model_of_another_program_is_none_of_ours(store, training):
    experiment_id = store.client.get_run(training()).info.experiment_id
    store.client.create_logged_model(experiment_id, name="theirs")
    assert list(leftovers.incomplete_models(store)) == []


def test_artifacts_that_cannot_be_written_are_an_error_where_writes_wait_for_them(store):
    for name, location in (("bad", "file:///proc/nowhere"), ("worse", "file:///proc/nowhere")):
        store.client.create_experiment(name, artifact_location=location)
    run_id = store.client.create_run(store.experiment_id("worse")).info.run_id
    outbox = waiting(run_id)
    waiting("0" * 32).close()  # of a run that the store does not have
    found = [(each.severity, each.text.split("'")[1]) for each in leftovers.unwritable_artifacts(store)]
    assert found == [("note", "bad"), ("error", "worse")]
    outbox.mark_delivered(0)
    assert {each.severity for each in leftovers.unwritable_artifacts(store)} == {"note"}
    outbox.close()


# ----------------------------------------------------------------------------------------------------------- aliases


@pytest.fixture
def net(store, training, logged, tmp_path):
    """The registered model `net`, whose champion was promoted; returns the model's id."""
    run_id = training()
    model_id = logged(run_id)
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    store.client.log_model_artifact(model_id, str(tmp_path / "MLmodel"))
    (tmp_path / "files").mkdir()
    (tmp_path / "MLmodel").rename(tmp_path / "files" / "MLmodel")
    store.client.set_logged_model_tags(model_id, digests.tags(tmp_path / "files"))
    versions.ensure(store, "net")
    versions.register(store, "net", f"models:/{model_id}", run_id)
    aliases.move(store, "net", "champion", "promote", "1")
    return model_id


def test_where_all_is_in_order_nothing_is_found(store, net):
    assert [*leftovers.misplaced_aliases(store), *leftovers.changed_model_files(store)] == []


def test_a_ticket_of_a_process_that_is_gone_is_removed(store, net):
    lease._write(lease._of_model(store, "net"), f"{lease.PREFIX}x", 1)  # of this process, which has no such turn
    (found,) = leftovers.misplaced_aliases(store)
    assert (
        found.text == f"registered model net: process {os.getpid()} on {os.uname().nodename} left a ticket and is gone"
    )
    assert (found.fix(), list(leftovers.misplaced_aliases(store))) == ("removed", [])


def test_an_alias_that_is_not_where_its_record_says_is_put_right(store, net):
    store.client.delete_registered_model_alias("net", "champion")
    (found,) = leftovers.misplaced_aliases(store)
    assert found.text == "registered model net: champion names version None, by its record version 1"
    assert found.fix() == "put right: champion is no version, and the record says so"
    store.client.set_registered_model_alias("net", "champion", "1")
    (found,) = leftovers.misplaced_aliases(store)
    assert found.fix() == "put right: champion is version 1, and the record says so"
    assert list(leftovers.misplaced_aliases(store)) == []


@pytest.mark.parametrize("more", [0, 5])
def test_files_that_are_not_what_was_logged_are_told(store, net, more):
    recorded = '{"MLmodel": "0"' + "".join(f', "gone{n}": "0"' for n in range(more)) + "}"
    store.client.set_logged_model_tags(net, {digests.TAG: recorded})
    (found,) = leftovers.changed_model_files(store)
    assert found.severity == "error"
    assert found.text.startswith("models:/net@champion (version 1) is not what was logged: MLmodel was changed")
    assert found.text.endswith("gone3 is missing and 1 more" if more else "was changed")
    assert found.remedy.endswith("promote another model: cifar-mlflow history net")


def test_files_that_are_gone_are_told_and_those_without_digests_are_not_looked_at(store, net, logged, training):
    other = logged(run_id := training())
    versions.ensure(store, "older")
    versions.register(store, "older", f"models:/{other}", run_id)
    store.client.set_registered_model_alias("older", "champion", "1")
    store.client.delete_logged_model(net)
    (found,) = leftovers.changed_model_files(store)
    assert "models:/net@champion (version 1) is not what was logged: there is no model" in found.text
