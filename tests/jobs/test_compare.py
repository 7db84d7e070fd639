"""`cifar-mlflow compare`: which runs a word means, and what is printed of them."""

import csv
import io
import json

import numpy as np
import pytest
from mlflow.entities import Metric, Param, RunTag

from cifar_mlflow.config.rules import resolve

NOISE = (-0.4, 0.1, 0.3, -0.2)


@pytest.fixture
def add_run(client, tmp_path):
    """Writes a run as `train` does, without training; returns its id."""

    def add(experiment, accuracy, *, status="FINISHED", tags=None, predictions=None, **fields):
        config = resolve({"dataset": "digits", "epochs": 2, "scheduler": "none", **fields})
        store = client()
        found = store.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else store.create_experiment(experiment)
        run_id = store.create_run(experiment_id).info.run_id
        metrics = [Metric("val_accuracy", accuracy - 3 + step, 0, step) for step in (1, 2)]
        metrics += [Metric(name, accuracy, 0, 0) for name in ("final_val_accuracy", "best_val_accuracy")]
        metrics += [Metric("test_accuracy", accuracy - 1, 0, 0)]
        described = {"kind": "single", "config_fingerprint": config.fingerprint, **(tags or {})}
        store.log_batch(
            run_id,
            metrics if status == "FINISHED" else [],
            [Param(name, value) for name, value in config.as_options().items()],
            [RunTag(name, value) for name, value in described.items()],
        )
        if predictions is not None:
            path = tmp_path / "val_predictions.npz"
            np.savez(path, index=np.arange(len(predictions)), label=np.zeros(len(predictions), int),
                     predicted=predictions)  # fmt: skip
            store.log_artifact(run_id, str(path))
        store.set_terminated(run_id, status)
        return run_id

    return add


@pytest.fixture
def two_configurations(cifar, add_run):
    """Four seeds each of relu (80) and elu (70) in the experiment `digits`; returns the run ids."""
    return [
        add_run("digits", mean + noise, activation=activation, seed=seed)
        for activation, mean in (("relu", 80.0), ("elu", 70.0))
        for seed, noise in enumerate(NOISE)
    ]


def rows(output):
    return list(csv.DictReader(io.StringIO(output)))


def test_an_experiment_is_compared_by_name(cifar, two_configurations):
    table = rows(cifar("compare", "digits", "--format", "csv").stdout)
    assert [(row["parameter:activation"], row["n"]) for row in table] == [("relu", "4"), ("elu", "4")]
    assert [row["verdict"].split()[0] for row in table] == ["best", "worse"]


def test_only_what_differs_is_a_column(cifar, two_configurations):
    header = next(line for line in cifar("compare", "digits").stdout.splitlines() if "mean" in line)
    assert "activation" in header
    assert "optimizer" not in header


def test_run_ids_choose_among_the_runs(cifar, two_configurations):
    table = rows(cifar("compare", *two_configurations[:2], "--format", "csv").stdout)
    assert [row["n"] for row in table] == ["2"]


def test_a_sweep_is_known_by_name_and_by_its_parent(cifar, add_run):
    parent = add_run("digits", 0, tags={"kind": "sweep", "sweep": "mine"})
    for seed in (0, 1):
        add_run("digits", 80 + seed, seed=seed, tags={"kind": "trial", "sweep": "mine", "sweep_id": parent})
    add_run("digits", 60)
    by_name = cifar("compare", "mine", "--format", "csv").stdout
    assert by_name == cifar("compare", parent, "--format", "csv").stdout
    assert [row["n"] for row in rows(by_name)] == ["2"]


def test_a_filter_narrows_and_stands_alone(cifar, two_configurations):
    condition = "params.activation = 'elu'"
    for words in (["digits", "--filter", condition], ["--filter", condition]):
        assert [row["n"] for row in rows(cifar("compare", *words, "--format", "csv").stdout)] == ["4"]


def test_jobs_are_left_out(cifar, two_configurations, add_run):
    add_run("digits", 99, tags={"kind": "job"})
    assert len(rows(cifar("compare", "digits", "--format", "csv").stdout)) == 2


def test_unfinished_runs_are_counted_not_compared(cifar, two_configurations, add_run):
    add_run("digits", 0, status="FAILED", activation="gelu")
    text = cifar("compare", "digits").stdout
    assert "gelu" not in text.split("\n\n")[0]
    assert "FAILED" in text


def test_a_parameter_typed_differently_is_the_same_configuration(cifar, client, two_configurations):
    # As `mlflow run -P learning_rate=0.0020` leaves it.
    store = client()
    run_id = store.create_run(store.get_experiment_by_name("digits").experiment_id).info.run_id
    config = resolve({"dataset": "digits", "epochs": 2, "scheduler": "none", "activation": "relu", "seed": 9})
    options = config.as_options() | {"learning_rate": "0.0020"}
    store.log_batch(
        run_id,
        [Metric("final_val_accuracy", 80.0, 0, 0)],
        [Param(name, value) for name, value in options.items()],
        [RunTag("kind", "single"), RunTag("config_fingerprint", config.fingerprint)],
    )
    store.set_terminated(run_id)
    assert rows(cifar("compare", "digits", "--format", "csv").stdout)[0]["n"] == "5"


def test_two_single_runs_are_paired_image_by_image(cifar, add_run):
    right, wrong = np.zeros(100, int), np.r_[np.ones(30, int), np.zeros(70, int)]
    add_run("digits", 90, activation="relu", predictions=right)
    add_run("digits", 60, activation="elu", predictions=wrong)
    assert "McNemar" in cifar("compare", "digits").stdout


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"", "shapes"])
def test_damaged_predictions_are_left_out_with_a_warning(cifar, add_run, client, tmp_path, content):
    right = np.zeros(100, int)
    damaged = add_run("digits", 90, activation="relu", predictions=right)
    add_run("digits", 60, activation="elu", predictions=right)
    file = tmp_path / "val_predictions.npz"
    if content == "shapes":
        np.savez(file, index=right, label=right[1:], predicted=right)
    else:
        file.write_bytes(content)
    client().log_artifact(damaged, str(file))
    outcome = cifar("compare", "digits")
    assert outcome.code == 0
    assert f"warning: the predictions recorded at the run {damaged} are damaged (" in outcome.stderr
    assert "it is compared without them" in outcome.stderr
    assert "McNemar" not in outcome.stdout


def test_the_test_set_is_shown_only_if_asked_for(cifar, add_run):
    add_run("digits", 80, tags={"test_evaluations": "3"})
    assert "79.00" not in cifar("compare", "digits").stdout
    asked = cifar("compare", "digits", "--with-test").stdout
    assert "79.00" in asked
    assert "3 times" in asked


def test_every_format_can_be_written_to_a_file(cifar, two_configurations, work):
    for form in ("table", "csv", "json", "markdown", "html"):
        assert cifar("compare", "digits", "--format", form, "--output", f"out.{form}").code == 0
    assert json.loads((work / "out.json").read_text())
    page = (work / "out.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_published_results_stand_beside_ours(cifar, two_configurations, work):
    (work / "reported.yaml").write_text(
        "common: {dataset: digits}\nresults:\n  - {activation: elu, accuracy: [73.6]}\n"
    )
    assert "73.6" in cifar("compare", "digits", "--reported", "reported.yaml").stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "name sweeps, experiments or runs, or give --filter"),
        (["nothing"], 6, "'nothing' names no run, no experiment and no sweep"),
        (["0" * 32], 6, f"there is no run {'0' * 32}"),
        (["digits", "--objective", "test_accuracy"], 2, "measured on the test set"),
        (["digits", "--objective", "luck"], 2, "no finished run has the metric luck"),
        (["digits", "--difference", "0"], 2, "difference must be a positive number"),
        (["digits", "--filter", "params.x ="], 2, "--filter: MLflow refuses 'params.x ='"),
        (["digits", "--reported", "none.yaml"], 2, "file none.yaml"),
        (["digits", "--output", "/proc/none/x"], 2, "--output: /proc/none/x cannot be written"),
        (["digits", "--reported", "a.yaml", "--output", "a.yaml"], 2, "a.yaml would be overwritten, and is to be read"),
    ],
)
def test_a_mistake_ends_in_one_message(cifar, two_configurations, words, code, message):
    outcome = cifar("compare", *words)
    assert outcome.code == code
    assert message in outcome.stderr
    assert "Traceback" not in outcome.output
