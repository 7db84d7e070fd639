"""`reproduce`: a run done again, and what is said of the differences."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.projects.utils import load_project
from support import move_store, run_here, standing_in

from cifar_mlflow.jobs.reproduce import EPOCH_METRICS, FINAL_METRICS


@pytest.fixture
def shift(client, run_id):
    """Changes one recorded number of the trained run, as if it had come out otherwise."""

    def change(name, epoch, by):
        points = {point.step: point for point in client().get_metric_history(run_id, name)}
        client().log_metric(run_id, name, points[epoch].value + by, points[epoch].timestamp + 1, epoch)

    return change


@pytest.fixture(scope="module")
def done(tmp_path_factory, trained_once):
    """The outcome of one reproduction of the trained run, and a copy of the store after it."""
    with standing_in(tmp_path_factory.mktemp("reproduced")) as work:
        move_store(trained_once[0].parent, work)
        store = MlflowClient(f"sqlite:///{work}/mlflow.db")
        experiment = store.get_experiment_by_name("tiny").experiment_id
        (original,) = store.search_runs([experiment])
        outcome = run_here("reproduce", original.info.run_id)
        (run,) = [run for run in store.search_runs([experiment]) if run.info.run_id != original.info.run_id]
        yield outcome, original, run, store


class TestTheSameRunAgain:
    def test_is_identical_to_the_bit(self, done):
        outcome, original, run, _ = done
        assert outcome.code == 0, outcome.output
        lines = outcome.stdout.splitlines()
        assert lines[-1] == "identical to the bit: 6 metrics over 3 epochs and 3 final metrics"
        assert f"run       {run.info.run_id} (tiny-prelu-adam-seed0-again), reproduces {original.info.run_id}" in lines
        assert lines[0].split() == ["metric", "verdict", "differs", "from", "epoch", "largest", "difference"]
        metrics = [name for name in (*EPOCH_METRICS, *FINAL_METRICS) if "test" not in name]
        assert [line.split() for line in lines[1:10]] == [[metric, "identical", "-", "0"] for metric in metrics]
        assert "differs:" not in outcome.stderr

    def test_stands_beside_the_original_and_points_to_it(self, done):
        outcome, original, run, _ = done
        assert run.info.experiment_id == original.info.experiment_id
        assert (run.info.run_name, run.info.status) == ("tiny-prelu-adam-seed0-again", "FINISHED")
        tags = run.data.tags
        assert (tags["kind"], tags["reproduces"]) == ("single", original.info.run_id)
        assert tags["reproduction"] == outcome.stdout.splitlines()[-1]
        assert tags["run_fingerprint"] == original.data.tags["run_fingerprint"]
        assert {**original.data.params, "threads": original.data.tags["threads_used"]} == run.data.params

    def test_keeps_the_comparison_as_a_file(self, done):
        _, original, run, store = done
        saved = json.loads(Path(store.download_artifacts(run.info.run_id, "reproduction.json")).read_text())
        assert (saved["reproduces"], saved["verdict"]) == (original.info.run_id, "identical")
        values = {entry["metric"]: entry for entry in saved["metrics"]}
        assert values["train_loss"]["original"] == values["train_loss"]["again"]
        assert [epoch for epoch, _ in values["train_loss"]["original"]] == [1, 2, 3]
        assert values["final_val_accuracy"]["again"] == [[0, run.data.metrics["final_val_accuracy"]]]

    def test_leaves_out_no_metric_of_a_training_but_its_speed(self, done):
        assert set(done[1].data.metrics) - {*EPOCH_METRICS, *FINAL_METRICS} == {"images_per_second"}

    def test_is_not_counted_as_a_second_sample(self, done, cifar, monkeypatch):
        _, original, _, store = done
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
        compared = json.loads(cifar("compare", "tiny", "--format", "json").stdout)
        (row,) = compared["configurations"]
        assert [run["run_id"] for run in row["runs"]] == [original.info.run_id]
        assert "agree to the last digit" in " ".join(compared["notes"])


def test_numbers_that_differ_end_in_8_after_the_comparison(cifar, run_id, shift, again):
    shift("train_loss", 2, 0.5)
    outcome = cifar("reproduce", run_id)
    assert outcome.code == 8
    line = "different from epoch 2 on (tolerance 0.001): the largest difference is 0.5 (train_loss, epoch 2)"
    assert outcome.stdout.splitlines()[-1] == line
    assert ["train_loss", "different", "2", "0.5"] in [line.split() for line in outcome.stdout.splitlines()]
    assert f"error: the run {run_id} was not reproduced by {again().info.run_id}; " in outcome.stderr
    assert again().data.tags["reproduction"] == line
    assert again().info.status == "FINISHED"


def test_a_difference_within_the_tolerance_is_no_failure(cifar, run_id, shift):
    shift("val_loss", 3, 0.0004)
    outcome = cifar("reproduce", run_id)
    assert outcome.code == 0
    assert outcome.stdout.splitlines()[-1].startswith("equal within the tolerance 0.001: 6 metrics over 3 epochs")


def test_json_is_printed_for_programs(cifar, run_id, shift, again):
    shift("train_loss", 2, 0.5)
    outcome = cifar("reproduce", run_id, "--format", "json", "--threads", 2)
    printed = json.loads(outcome.stdout)
    assert outcome.code == 8
    assert (printed["run_id"], printed["reproduces"]) == (again().info.run_id, run_id)
    assert {"what": "threads", "there": "1", "here": "2"} in printed["differences"]
    (loss,) = [entry for entry in printed["metrics"] if entry["metric"] == "train_loss"]
    assert 2 in loss["epochs_beyond_tolerance"]
    assert loss["largest_difference"] == pytest.approx(0.5, abs=0.01)


def test_what_is_changed_by_hand_is_said_and_used(cifar, run_id, again):
    outcome = cifar("reproduce", run_id, "--threads", 2, "--precision", "bfloat16", "--tolerance", 0)
    assert "differs: threads 1 there, 2 here" in outcome.stderr
    assert "differs: precision float32 there, bfloat16 here" in outcome.stderr
    # Eight significant bits instead of twenty-four: the first epoch's loss cannot be the same.
    assert outcome.code == 8
    assert outcome.stdout.splitlines()[-1].startswith("different from epoch 1 on (tolerance 0): ")
    assert "different at its start: " in outcome.stderr
    assert "precision, threads (see above)" in outcome.stderr
    tags = again().data.tags
    assert (tags["threads_used"], tags["precision_used"]) == ("2", "bfloat16")


def test_code_versions_and_hardware_that_differ_are_said(cifar, client, run_id):
    recorded = {"git_commit": "0123456789abcdef", "git_dirty": "false", "version_torch": "1.0"}
    recorded |= {"hardware": "an abacus", "kernels_used": "compiled for an abacus"}
    for name, value in recorded.items():
        client().set_tag(run_id, name, value)
    stderr = cifar("reproduce", run_id).stderr
    assert "differs: commit 0123456789ab there, " in stderr
    assert "differs: torch 1.0 there, 2" in stderr
    for what in ("hardware an abacus", "kernels compiled for an abacus"):
        assert f"differs: {what} there, " in stderr


def test_code_that_nobody_can_know_may_differ(cifar, client, run_id, monkeypatch):
    from cifar_mlflow.tracking.writing import provenance

    monkeypatch.setattr(provenance, "commit_and_state", lambda: ("0123456789abcdef", True))
    client().set_tag(run_id, "git_commit", "0123456789abcdef")
    client().set_tag(run_id, "git_dirty", "true")
    outcome = cifar("reproduce", run_id)
    assert "may differ: commit 0123456789ab with uncommitted changes there and here" in outcome.stderr


class TestUnderMlflowRun:
    @pytest.fixture
    def project_run(self, client, trained, monkeypatch):
        run = client().create_run(client().create_experiment("theirs"), run_name="named")
        client().log_param(run.info.run_id, "run", trained.info.run_id)
        monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
        return run

    def test_the_entry_point_passes_the_run_and_whatever_else_is_given(self):
        entry_point = load_project(str(Path(__file__).parents[3])).get_entry_point("reproduce")
        command = entry_point.compute_command({"run": "0" * 32, "tolerance": "0"}, None)
        assert command == f"python -m cifar_mlflow reproduce {'0' * 32} --wait false --tolerance 0"

    def test_the_run_is_mlflows(self, cifar, run_id, again, project_run):
        assert cifar("reproduce", run_id).code == 0
        assert again().info.run_id == project_run.info.run_id
        assert (again().info.run_name, again().info.status) == ("named", "FINISHED")
        assert again().data.tags["reproduction"].startswith("identical to the bit: ")

    def test_a_relative_path_is_refused(self, cifar, run_id, project_run):
        outcome = cifar("reproduce", run_id, "--data-dir", "here")
        assert outcome.code == 2
        assert "--data-dir: 'here' is relative; give an absolute path under `mlflow run`" in outcome.stderr
