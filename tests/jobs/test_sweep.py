"""Real sweeps on a tiny dataset: real processes, real SQLite, real kill -9."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml
from servers import mlflow_server
from support import move_store, run_here, standing_in

from cifar_mlflow.learning import kernels
from cifar_mlflow.tracking import runs as tracking_runs

BASE = {"epochs": 2, "batch_size": 8, "scheduler": "none", "precision": "float32"}
QUICK_SPEC = Path(__file__).parents[2] / "experiments" / "quick.yaml"
SPACE = {"activation": ["relu", "elu"], "learning_rate": [0.002, 0.01]}


@pytest.fixture
def write_spec(work, tiny):
    """Writes the spec of a sweep on the tiny dataset, with some keys changed; returns its path."""

    def write(base=None, **changes) -> Path:
        spec = {
            "name": "tiny",
            "base": {"dataset": str(tiny), **BASE, **(base or {})},
            "space": SPACE,
            "repeats": 2,
            "workers": 1,
            "log_models": False,
            **changes,
        }
        path = work / "sweep.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path

    return write


@pytest.fixture(scope="session")
def _uninterrupted(tmp_path_factory, tiny, empty_store):
    """A sweep that ran to its end: the directory that it ran in, what it printed, and its table."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    with standing_in(directory) as work:
        shutil.copy(empty_store, work / "mlflow.db")
        spec = {"name": "tiny", "base": {"dataset": str(tiny), **BASE}, "space": SPACE, "repeats": 2}
        (work / "sweep.yaml").write_text(yaml.safe_dump({**spec, "log_models": False}))
        outcome = run_here("sweep", "sweep.yaml")
        assert outcome.code == 0, outcome.output
        (results,) = work.rglob("results.csv")
        return directory, outcome, comparable(results)


@pytest.fixture
def finished(work, _uninterrupted):
    """A copy of that sweep in the current directory, artifacts and all; returns what it printed."""
    directory, outcome, _ = _uninterrupted
    move_store(directory / "work", work)
    shutil.copytree(directory / "state", work.parent / "state", dirs_exist_ok=True)
    return outcome


@pytest.fixture
def expected(_uninterrupted):
    """The table of the uninterrupted sweep."""
    return _uninterrupted[2]


@pytest.fixture
def parent(runs):
    """A function that returns the one parent run of the store."""

    def only():
        (found,) = [run for run in runs() if run.data.tags.get("kind") == "sweep"]
        return found

    return only


@pytest.fixture
def children(runs):
    return lambda: [run for run in runs() if run.data.tags.get("kind") == "trial"]


def comparable(results: Path) -> list[dict[str, str]]:
    """The table in results.csv, without what differs between any two sweeps: run ids and times."""
    rows = list(csv.DictReader(io.StringIO(results.read_text())))
    return [{key: value for key, value in row.items() if key not in ("minutes", "run_ids")} for row in rows]


@pytest.fixture
def table(client, parent, tmp_path):
    """A function that returns the comparable table of the store's sweep."""
    return lambda: comparable(Path(client().download_artifacts(parent().info.run_id, "results.csv", str(tmp_path))))


def trained_once(found) -> bool:
    """Whether no configuration was trained to the end twice with the same seed."""
    counts = Counter(run.data.tags["run_fingerprint"] for run in found if run.info.status == "FINISHED")
    return set(counts.values()) == {1}


def tree(process) -> list[psutil.Process]:
    """The process and its workers."""
    parent = psutil.Process(process.pid)
    return [parent, *(child for child in parent.children(recursive=True) if "spawn_main" in " ".join(child.cmdline()))]


def wait_for(condition, process=None, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.3)  # a look at the store costs as much as an epoch


# --------------------------------------------------------------------------------------------------- to the end


def test_all_runs_stand_under_one_parent(finished, client, parent, children, runs):
    found = children()
    assert len(found) == 8
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == {parent().info.run_id}
    assert {run.info.status for run in runs()} == {"FINISHED"}
    assert trained_once(found)
    history = client().get_metric_history(found[0].info.run_id, "val_accuracy")
    assert [metric.step for metric in history] == [1, 2]
    assert "of 8" not in finished.stdout
    assert "8 runs" in finished.stderr
    assert "winner activation elu" in finished.stdout
    winner = parent().data.tags["winner_run"]
    assert f"model     cifar-mlflow reproduce {winner} (the sweep has kept none: log_models: false)" in finished.stdout


def test_the_parent_carries_results_and_no_accuracies_of_its_own(finished, client, parent):
    files = {file.path for file in client().list_artifacts(parent().info.run_id)}
    assert files >= {"sweep.yaml", "results.csv", "results.json", "report.html", "curves.png", "importances.json"}
    assert parent().data.metrics == {}
    assert "Winner" in parent().data.tags["mlflow.note.content"]


def test_started_again_with_the_same_spec_it_trains_nothing(finished, write_spec, children, table, parent):
    before, ids = table(), {run.info.run_id for run in children()}
    outcome = run_here("sweep", write_spec())
    assert outcome.code == 0, outcome.output
    assert "nothing is left to train" in outcome.stderr
    assert {run.info.run_id for run in children()} == ids
    assert table() == before
    assert parent().info.status == "FINISHED"


def test_started_again_it_reads_its_own_runs_alone(finished, write_spec, client, parent, asked, monkeypatch):
    def requests():
        asked.clear()
        assert run_here("sweep", write_spec()).code == 0
        return {name: count for name, count in asked.items() if "experiment" not in name}

    monkeypatch.setattr(tracking_runs, "PAGE", 5)  # its own eight take two
    requests()  # which may change a view
    alone = requests()
    assert alone["get_metric_history_bulk"] == 1  # for the report; what there is left to train needs no curves
    for number in range(6):
        tags = {"kind": "trial", "sweep": "other", "sweep_id": "0" * 32, "run_fingerprint": str(number)}
        run = client().create_run(parent().info.experiment_id, tags=tags)
        client().set_terminated(run.info.run_id)
    assert requests() == alone


def test_compiled_functions_that_cannot_be_used_are_told_of_once(finished, write_spec, monkeypatch):
    monkeypatch.setattr(kernels, "fault", lambda: "the library is damaged")
    outcome = run_here("sweep", str(write_spec()))
    assert outcome.stderr.count("warning: the library is damaged") == 1


def test_a_changed_spec_is_refused_and_says_what_changed(finished, write_spec, runs):
    before = len(runs())
    outcome = run_here("sweep", write_spec(base={"epochs": 3}, space={"activation": ["relu"], "gamma": [0.1]}))
    assert outcome.code == 2
    for change in (
        "base: epochs: was 2, is 3",
        "activation: elu is gone",
        "learning_rate: was",
        "gamma: was not given",
    ):
        assert change in outcome.stderr
    assert len(runs()) == before


def test_a_spec_that_only_adds_is_continued(finished, write_spec, children, table):
    before = {run.info.run_id for run in children()}
    space = {"activation": ["relu", "elu"], "learning_rate": [0.002, 0.01, 0.005]}
    outcome = run_here("sweep", write_spec(space=space, repeats=3))
    assert outcome.code == 0, outcome.output
    assert "18 runs, 8 done before; 10 to train" in outcome.stderr
    found = children()
    assert before < {run.info.run_id for run in found}
    assert len(found) == 18
    assert trained_once(found)
    assert [row["n"] for row in table()] == ["3"] * 6


def test_under_mlflow_run_the_parent_is_the_run_that_mlflow_made(finished, write_spec, client, children, parent):
    old = parent()
    run = client().create_run(old.info.experiment_id)
    os.environ["MLFLOW_RUN_ID"] = run.info.run_id
    outcome = run_here("sweep", write_spec())
    assert outcome.code == 0, outcome.output
    assert {child.data.tags["mlflow.parentRunId"] for child in children()} == {run.info.run_id}
    assert client().get_run(run.info.run_id).info.status == "FINISHED"
    assert client().get_run(old.info.run_id).data.tags["superseded_by"] == run.info.run_id
    assert len(children()) == 8


# -------------------------------------------------------------------------------------------------- broken off


def test_a_killed_sweep_goes_on_to_the_same_table(expected, cifar, write_spec, spawn, table, runs, children):
    spec = write_spec(workers=2)
    kill_at_random_moments(spawn, spec, children, times=2)
    outcome = cifar("sweep", spec)
    assert outcome.code == 0, outcome.output
    assert table() == expected
    assert "RUNNING" not in {run.info.status for run in runs()}
    assert trained_once(children())


def kill_at_random_moments(spawn, spec, children, times, within=3) -> None:
    """Starts the sweep and kills it (the driver and the workers, or the driver alone), `times` times.

    That is at most `within` seconds after its first new run.
    """
    chance = random.Random(0)
    for number in range(times):
        process = spawn("sweep", spec)
        before = len(children())
        wait_for(lambda before=before, process=process: len(children()) > before or process.poll() is not None)
        time.sleep(chance.uniform(0, within))
        if process.poll() is not None:  # it was done before its time
            return
        victims = tree(process) if number % 2 == 0 else [psutil.Process(process.pid)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        process.wait()


def test_the_run_of_a_killed_worker_is_tried_once_more(cifar, write_spec, spawn, children, parent):
    # So many epochs that the worker is still at the first run when it is killed.
    process = spawn("sweep", write_spec(repeats=1, space={"activation": ["elu"]}, base={"epochs": 150}))
    wait_for(lambda: any("val_accuracy" in run.data.metrics for run in children()), process)
    tree(process)[1].kill()
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert "killed by SIGKILL; it is tried once more" in stderr
    assert sorted(run.info.status for run in children()) == ["FINISHED", "KILLED"]
    assert "1 run, 0 failed" in stdout


def test_ctrl_c_closes_every_run_and_the_same_command_goes_on(cifar, write_spec, spawn, children, parent, statuses):
    spec = write_spec(base={"epochs": 40}, space={"activation": ["relu", "elu"]})
    process = spawn("sweep", spec)
    wait_for(lambda: any("val_accuracy" in run.data.metrics for run in children()), process)
    # A terminal sends it to the whole process group.
    for each in tree(process)[::-1]:
        each.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command goes on" in stderr
    assert "Traceback" not in stderr
    assert parent().info.status == "KILLED"
    assert set(statuses()) <= {"KILLED", "FINISHED"}
    outcome = run_here("sweep", spec)
    assert outcome.code == 0, outcome.output
    assert parent().info.status == "FINISHED"
    assert trained_once(children())


# ------------------------------------------------------------------------------------ failed, pruned, not judged


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(cifar, write_spec, children):
    spec = write_spec(space={"learning_rate": [0.002, 1.0e30]}, base={"optimizer": "sgd"})
    outcome = run_here("sweep", spec)
    assert outcome.code == 0, outcome.output
    assert "4 runs, 2 failed" in outcome.stdout
    failed = [run for run in children() if run.info.status == "FAILED"]
    assert len(failed) == 2
    assert "the loss is" in failed[0].data.tags["failure"]
    # The same would happen again, so it is not tried again.
    again = run_here("sweep", spec)
    assert "nothing is left" in again.stderr
    assert len(children()) == 4


def test_a_sweep_of_which_every_run_fails_ends_in_an_error(cifar, write_spec, parent):
    outcome = run_here("sweep", write_spec(space={"learning_rate": [1.0e30]}, base={"optimizer": "sgd"}))
    assert outcome.code == 5
    assert "all 2 runs of the sweep failed" in outcome.stderr
    assert parent().info.status == "FAILED"


def test_only_the_first_seed_is_pruned_and_a_pruned_configuration_has_no_others(cifar, write_spec, children):
    spec = write_spec(
        space={"learning_rate": {"low": 1.0e-6, "high": 0.01, "log": True}},
        base={"epochs": 6},
        sampler="random",
        trials=6,
        pruner="successive_halving",
    )
    outcome = run_here("sweep", spec)
    assert outcome.code == 0, outcome.output
    by_trial: dict[str, list] = {}
    for run in children():
        by_trial.setdefault(run.data.tags["trial"], []).append(run)
    pruned = [found for found in by_trial.values() if any(run.data.tags.get("pruned") for run in found)]
    assert len(by_trial) == 6
    assert pruned, "nothing was pruned, so this test shows nothing"
    for found in pruned:
        (run,) = found
        assert (run.data.params["seed"], run.info.status) == ("0", "KILLED")
        assert "failure" not in run.data.tags
    assert all(len(found) == 2 for found in by_trial.values() if found not in pruned)
    assert "pruned" in outcome.stdout
    count = len(children())
    assert "nothing is left" in run_here("sweep", spec).stderr
    assert len(children()) == count


def test_without_validation_images_there_is_a_table_and_no_winner(cifar, write_spec, parent, children):
    outcome = run_here("sweep", write_spec(base={"validation_size": 0}, space={"activation": ["relu", "elu"]}))
    assert outcome.code == 0, outcome.output
    assert "no winner" in outcome.stdout
    assert "Nothing may be chosen" in " ".join(outcome.stdout.split())
    assert "best so far" not in outcome.stderr
    assert all("final_val_accuracy" not in run.data.metrics for run in children())


def test_a_budget_of_runs_is_kept_and_a_larger_one_goes_on(cifar, write_spec, children):
    first = run_here("sweep", write_spec(budget={"runs": 3}))
    assert first.code == 0, first.output
    assert len(children()) == 3
    assert "(5 runs are left)" in first.stdout
    second = run_here("sweep", write_spec())
    assert second.code == 0, second.output
    assert len(children()) == 8
    assert trained_once(children())


# ------------------------------------------------------------------------------------------------------- many


@pytest.mark.long
@pytest.mark.parametrize("where", ["a fresh sqlite store", "a server"])
def test_four_sweeps_at_once_all_end(write_spec, spawn, runs, work, tmp_path, monkeypatch, where):
    specs = []
    for number in range(4):
        path = work / f"sweep{number}.yaml"
        shutil.move(write_spec(name=f"tiny{number}"), path)
        specs.append(path)
    with contextlib.ExitStack() as stack:
        if where == "a server":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.enter_context(mlflow_server(tmp_path)))
        processes = [spawn("sweep", spec) for spec in specs]
        for process in processes:
            _, stderr = process.communicate(timeout=900)
            assert process.returncode == 0, stderr
    if where == "a server":
        shutil.copy(tmp_path / "server.db", work / "mlflow.db")
    assert Counter(run.info.status for run in runs()) == {"FINISHED": 4 * 9}


@pytest.mark.long
def test_a_sweep_killed_five_times_goes_on_to_the_same_table(expected, cifar, write_spec, spawn, table, runs, children):
    spec = write_spec(workers=2)
    kill_at_random_moments(spawn, spec, children, times=5)
    assert cifar("sweep", spec).code == 0
    assert table() == expected
    assert "RUNNING" not in {run.info.status for run in runs()}
    assert trained_once(children())


@pytest.mark.long
def test_quick_yaml_killed_five_times_goes_on_to_the_same_table(
    cifar, spawn, table, runs, children, tmp_path_factory, empty_store
):
    with standing_in(tmp_path_factory.mktemp("quick")) as elsewhere:
        shutil.copy(empty_store, elsewhere / "mlflow.db")
        assert run_here("sweep", QUICK_SPEC).code == 0
        (results,) = elsewhere.rglob("results.csv")
    kill_at_random_moments(spawn, QUICK_SPEC, children, times=5, within=15)
    assert cifar("sweep", QUICK_SPEC).code == 0
    assert table() == comparable(results)
    assert "RUNNING" not in {run.info.status for run in runs()}
    assert trained_once(children())
    assert len({run.data.tags["run_fingerprint"] for run in children()}) == 12
