"""`mlflow run`, typed as README says, with the environments that can be had without conda."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from support import with_tables

from cifar_mlflow.config.training import TrainingConfig

ROOT = Path(__file__).parent.parent.parent
EPOCH_METRICS = {"val_accuracy", "val_loss", "train_accuracy", "train_loss", "lr", "images_per_second"}


def mlflow_run(directory, *arguments, timeout=300):
    """Runs `mlflow run PROJECT ...` in `directory`, with this Python first on PATH."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", "OMP_NUM_THREADS": "1"}
    command = [Path(sys.executable).parent / "mlflow", "run", *arguments]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def parameters(**values):
    """-P name=value for each."""
    return [word for name, value in values.items() for word in ("-P", f"{name}={value}")]


def store(directory):
    return MlflowClient(f"sqlite:///{directory}/mlflow.db")


def runs(directory, experiment):
    client = store(directory)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory in which one project run has trained two epochs on digits."""
    directory = tmp_path_factory.mktemp("project_run")
    done = mlflow_run(
        directory, str(ROOT), "--env-manager", "local", "--experiment-name", "x", "--run-name", "y",
        *parameters(activation="prelu", learning_rate="0.0020", epochs=2, dataset="digits", batch_size=64),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return directory, done


def test_the_run_that_mlflow_made_is_the_training_run(trained):
    (run,) = runs(trained[0], "x")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "y")
    assert run.data.tags["kind"] == "single"


def test_every_parameter_is_logged_and_one_keeps_the_form_it_was_typed_in(trained):
    (run,) = runs(trained[0], "x")
    assert set(run.data.params) == {*TrainingConfig.model_fields, "wait"}
    assert run.data.params["learning_rate"] == "0.0020"
    assert run.data.params["activation"] == "prelu"


def test_each_epoch_is_one_step_of_every_metric(trained):
    (run,) = runs(trained[0], "x")
    for name in EPOCH_METRICS:
        history = store(trained[0]).get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == [1, 2], name


def test_the_last_lines_tell_the_run_and_what_to_type_next(trained):
    (run,) = runs(trained[0], "x")
    lines = trained[1].stdout.splitlines()
    assert f"evaluate  cifar-mlflow evaluate {run.info.run_id}" in lines
    assert lines[-1].startswith("done: digits, validation accuracy ")


def test_evaluate_writes_to_the_training_run_and_marks_its_own_as_a_job(trained):
    (run,) = runs(trained[0], "x")
    done = mlflow_run(
        trained[0], str(ROOT), "-e", "evaluate", "--env-manager", "local", "--experiment-name", "jobs",
        "-P", f"model={run.info.run_id}", "-P", "weights=last",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (job,) = runs(trained[0], "jobs")
    assert (job.data.tags["kind"], job.info.status, job.data.metrics) == ("job", "FINISHED", {})
    assert runs(trained[0], "x")[0].data.metrics["test_accuracy"] > 20  # by chance it would be 10


@pytest.mark.long
def test_predict_prints_what_the_model_sees_and_marks_its_own_run_as_a_job(trained):
    (run,) = runs(trained[0], "x")
    image = trained[0] / "a picture.png"
    Image.new("RGB", (40, 30)).save(image)
    done = mlflow_run(
        trained[0], str(ROOT), "-e", "predict", "--env-manager", "local", "--experiment-name", "predictions",
        *parameters(model=run.info.run_id, images=image, top=2, format="csv"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.rsplit(",", 2)[0] for line in done.stdout.splitlines() if line.startswith(str(image))] == [
        f"{image},1", f"{image},2",
    ]  # fmt: skip
    (job,) = runs(trained[0], "predictions")
    assert (job.data.tags["kind"], job.info.status) == ("job", "FINISHED")


@pytest.mark.long
def test_a_parameter_with_a_dash_is_never_trained_with_beside_the_default(tmp_path):
    done = mlflow_run(
        tmp_path, str(ROOT), "--env-manager", "local", "--experiment-name", "x",
        *parameters(dataset="digits", epochs=1, **{"learning-rate": "0.01"}),
    )  # fmt: skip
    (run,) = runs(tmp_path, "x")
    assert done.returncode == 1  # MLflow's, for a command that ended with 2
    assert "learning_rate: the run has 0.002 already, and 0.01 would be trained" in done.stderr
    assert (run.info.status, run.data.metrics) == ("FAILED", {})


@pytest.mark.long
def test_a_preset_yields_to_what_is_typed(tmp_path):
    with_tables(tmp_path / "mlflow.db")
    (tmp_path / "mine.yaml").write_text("dataset: digits\nepochs: 9\nbatch_size: 128\n")
    done = mlflow_run(
        tmp_path, str(ROOT), "-e", "preset", "--env-manager", "local", "--experiment-name", "x",
        "-P", "config=mine.yaml", "-P", "epochs=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = runs(tmp_path, "x")
    assert (run.data.params["epochs"], run.data.params["batch_size"]) == ("1", "128")


@pytest.mark.long
def test_a_relative_data_directory_is_refused(tmp_path):
    with_tables(tmp_path / "mlflow.db")
    done = mlflow_run(
        tmp_path, str(ROOT), "--env-manager", "local", "--experiment-name", "x", "-P", "data_dir=somewhere"
    )
    assert done.returncode != 0
    assert "--data-dir: 'somewhere' is relative; give an absolute path under `mlflow run`" in done.stderr
    assert [run.info.status for run in runs(tmp_path, "x")] == ["FAILED"]


@pytest.mark.skipif(shutil.which("conda") is not None, reason="conda is installed")
def test_without_conda_mlflow_says_what_the_guide_quotes(tmp_path):
    done = mlflow_run(tmp_path, str(ROOT), "-P", "activation=prelu")
    quoted = "Could not find Conda executable at conda."
    assert done.returncode != 0
    assert quoted in done.stderr
    assert quoted in (ROOT / "docs" / "guides" / "mlflow-project.md").read_text()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("pyenv") is None, reason="pyenv is not installed: MLflow's virtualenv needs it")
def test_virtualenv_builds_its_environment_from_conda_yaml(tmp_path):
    """Takes minutes the first time; MLflow keeps the environment for the next."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "cifar_mlflow", project / "cifar_mlflow", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, project)
    done = mlflow_run(
        tmp_path, "project", "--env-manager", "virtualenv", "--experiment-name", "x",
        *parameters(dataset="digits", epochs=1, batch_size=64), timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = runs(tmp_path, "x")
    assert run.info.status == "FINISHED"
    assert run.data.tags["git_commit"].startswith("unknown")


@pytest.mark.long
def test_make_run_trains_on_what_there_is(tmp_path):
    """`make run ARGS="-P epochs=1"` of README.md in a copy of a clone, less the installation."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv*", "mlflow.db", "mlruns", "__pycache__"))
    (clone / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (clone / ".venv" / part.name).symlink_to(part)
    (clone / ".venv" / ".installed").unlink(missing_ok=True)
    (clone / ".venv" / ".installed").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        ["make", "run", "ARGS=-P epochs=1"],
        cwd=clone, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    data = "cifar10" if "CIFAR_MLFLOW_DATA" in os.environ else "digits"
    assert re.search(rf"^done: {data}, validation accuracy [0-9.]+%$", done.stdout, re.MULTILINE)
    (run,) = runs(clone, data)
    assert (run.info.status, run.data.params["epochs"]) == ("FINISHED", "1")
