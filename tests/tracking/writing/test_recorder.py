"""What the recorder writes is what MLflow gives back; the model loads with no pickle and no code of ours."""

import shutil
import subprocess
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.tracking.reading import models
from cifar_mlflow.tracking.reading.runs import configuration
from cifar_mlflow.tracking.store import connect
from cifar_mlflow.tracking.writing import digests, model_files, provenance
from cifar_mlflow.tracking.writing.model_files import ExportedModel
from cifar_mlflow.tracking.writing.recorder import Recorder


@pytest.fixture
def recorder(cifar):
    return Recorder.start(connect(), "mine", "first", {"kind": "single"})


def exported(module):
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 1), dtype=np.uint8)
    answer = np.full((4, 2), 0.5, dtype=np.float32)
    return ExportedModel(module.eval(), "net-last", "last", 7, images, answer, ("cat", "dog"), ["torch"])


class Mean(torch.nn.Module):
    """The smallest classifier: the brightness, and what is left of 1."""

    def forward(self, pixels):
        bright = pixels.float().mean((1, 2, 3)) / 255
        return torch.stack([bright, 1 - bright], 1)


def test_a_run_is_running_until_it_is_finished(recorder, runs, statuses):
    (run,) = runs()
    assert (run.info.run_name, run.data.tags["kind"], run.info.status) == ("first", "single", "RUNNING")
    recorder.finish("KILLED")
    assert statuses() == ["KILLED"]
    assert runs()[0].info.end_time is not None


def test_parameters_that_are_there_are_left_as_they_are(recorder, client, runs):
    client().log_param(recorder.run_id, "learning_rate", "0.0020")
    recorder.log_parameters({"learning_rate": "0.002", "epochs": "3"})
    assert runs()[0].data.params == {"learning_rate": "0.0020", "epochs": "3"}


def test_metrics_have_their_step(recorder, client):
    for epoch in (1, 2):
        recorder.log_metrics({"val_accuracy": 10.0 * epoch}, step=epoch)
    points = client().get_metric_history(recorder.run_id, "val_accuracy")
    assert [(point.step, point.value) for point in points] == [(1, 10.0), (2, 20.0)]


def test_files_are_at_the_root_byte_for_byte(recorder, client):
    recorder.log_files({"a.bin": bytes(range(256)), "b.txt": b""})
    assert [entry.path for entry in client().list_artifacts(recorder.run_id)] == ["a.bin", "b.txt"]
    with open(client().download_artifacts(recorder.run_id, "a.bin"), "rb") as file:
        assert file.read() == bytes(range(256))


def test_what_the_store_refuses_is_a_tracking_error(recorder):
    with pytest.raises(TrackingError, match="exceeds the maximum length"):
        recorder.set_tags({"x" * 300: "long"})


class TestALoggedModel:
    @pytest.fixture
    def uri(self, recorder, work, client):
        model_files.save(exported(Mean()), work / "saved")
        recorder.log_saved_model(work / "saved", {}, timestamp=1, key="first")
        (model,) = client().search_logged_models([recorder.experiment_id])
        return f"models:/{model.model_id}"

    def test_takes_any_number_of_images_with_pickle_forbidden(self, uri, monkeypatch):
        monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        model = mlflow.pyfunc.load_model(uri)
        for count in (1, 3, 7):
            images = np.full((count, 6, 6, 1), 51, dtype=np.uint8)
            assert np.asarray(model.predict(images)) == pytest.approx(np.array([[0.2, 0.8]] * count))

    def test_tells_its_images_classes_and_needs(self, uri):
        info = mlflow.models.get_model_info(uri)
        (images,), (probabilities,) = info.signature.inputs.inputs, info.signature.outputs.inputs
        assert (images.type, images.shape) == (np.dtype("uint8"), (-1, 6, 6, 1))
        assert (probabilities.type, probabilities.shape) == (np.dtype("float32"), (-1, 2))
        assert info.metadata["classes"] == ["cat", "dog"]
        assert info.saved_input_example_info is not None

    def test_knows_its_files_and_its_answer_to_the_example(self, uri, client):
        model = client().get_logged_model(uri.removeprefix("models:/"))
        directory = Path(model.artifact_location)
        assert digests.differences(directory, model.tags) == []
        assert digests.read_example_answer(directory).tolist() == [[0.5, 0.5]] * 4
        (directory / "added").touch()
        (directory / "registered_model_meta").touch()  # as MLflow does when it loads a registered model
        (directory / "requirements.txt").unlink()
        assert digests.differences(directory, model.tags) == ["added was added", "requirements.txt is missing"]
        assert digests.differences(directory, {}) is None

    def test_belongs_to_its_run_at_its_epoch(self, uri, recorder, client, runs):
        (output,) = runs()[0].outputs.model_outputs
        model = client().get_logged_model(output.model_id)
        assert (f"models:/{model.model_id}", output.step) == (uri, 7)
        assert (model.source_run_id, model.tags["weights"], model.tags["epoch"]) == (recorder.run_id, "last", "7")
        assert str(model.status) == "READY"

    def test_is_completed_if_it_was_begun_under_its_key(self, uri, recorder, work, client):
        recorder.log_saved_model(work / "saved", {"best": 1.0}, timestamp=1, key="first")
        assert len(client().search_logged_models([recorder.experiment_id])) == 1
        recorder.log_saved_model(work / "saved", {}, timestamp=1, key="second")
        assert len(client().search_logged_models([recorder.experiment_id])) == 2

    def test_can_be_asked_as_a_function_of_a_tensor(self, uri):
        answers = models.load_model(uri, {})(torch.full((2, 6, 6, 1), 255, dtype=torch.uint8))
        assert answers.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_a_model_that_holds_a_pickle_is_not_loaded(recorder, client):
    with mlflow.start_run(recorder.run_id):
        options = {"serialization_format": "pickle", "pip_requirements": ["torch"]}
        info = mlflow.pytorch.log_model(torch.nn.Linear(2, 2), name="pickled", **options)
    with pytest.raises(ModelError, match="cannot be loaded"):
        models.load_model(f"models:/{info.model_id}", {})


def test_the_configuration_of_a_run_is_read_through_the_shells_quotes(recorder, client):
    client().log_param(recorder.run_id, "dataset", "'my data/x.npz'")
    recorder.log_parameters({"learning_rate": "1e-3", "note": "no field"})
    config = configuration(client().get_run(recorder.run_id))
    assert (config.dataset, config.learning_rate) == ("my data/x.npz", 0.001)


def test_parameters_that_are_no_configuration_are_a_model_error(recorder, client):
    recorder.log_parameters({"epochs": "many"})
    with pytest.raises(ModelError, match=f"the parameters of the run {recorder.run_id} are no configuration"):
        configuration(client().get_run(recorder.run_id))


class TestProvenance:
    def test_is_told_in_tags(self):
        tags = provenance.tags()
        assert torch.__version__.startswith(tags["version_torch"])
        assert tags["version_mlflow"] == mlflow.__version__
        assert tags["process_id"].isdigit()

    def test_of_a_package_outside_a_checkout_is_unknown(self, work, monkeypatch):
        monkeypatch.setattr(provenance, "PACKAGE", work)
        assert provenance.commit_and_state() == (None, False)
        assert provenance.tags()["git_commit"].startswith("unknown")
        assert "git_dirty" not in provenance.tags()

    def test_of_a_checkout_is_its_commit_and_whether_it_differs(self, work, monkeypatch):
        def git(*words):
            identity = ["-c", "user.name=A", "-c", "user.email=a@b"]
            done = subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True)
            return done.stdout.strip()

        (work / "__init__.py").write_text("")
        git("init")
        git("add", ".")
        git("commit", "-m", "first")
        monkeypatch.setattr(provenance, "PACKAGE", work)
        assert provenance.commit_and_state() == (git("rev-parse", "HEAD"), False)
        changed = shutil.copytree(work, work / "changed")
        (changed / "__init__.py").write_text("changed = True\n")
        monkeypatch.setattr(provenance, "PACKAGE", changed)
        assert provenance.commit_and_state() == (git("rev-parse", "HEAD"), True)

    @pytest.fixture
    def checkout(self, work, monkeypatch):
        """A checkout with the package, and a function that calls git there."""

        def git(*words):
            command = ["git", "-C", work, "-c", "user.name=A", "-c", "user.email=a@b", *words]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

        package = work / "package"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (work / ".gitignore").write_text("ignored/\n")
        git("init")
        git("add", ".")
        git("commit", "-m", "first")
        monkeypatch.setattr(provenance, "PACKAGE", package)
        provenance._code_of.cache_clear()
        return git

    @pytest.mark.parametrize(
        ("name", "dirty"),
        [("new.py", "true"), ("package/new.c", "true"), ("ignored/x.py", "false"), ("x.npz", "false")],
    )
    def test_new_code_counts_as_a_change(self, checkout, work, name, dirty):
        (work / "ignored").mkdir()
        (work / name).write_text("")
        assert provenance.tags()["git_dirty"] == dirty

    def test_of_a_checkout_of_another_owner(self, checkout, monkeypatch):
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        assert provenance.tags()["git_commit"] == checkout("-c", "safe.directory=*", "rev-parse", "HEAD")
        assert provenance.fault() is None

    def test_what_git_refuses_is_told(self, checkout, work):
        (work / ".git" / "config").write_text("[core")
        assert provenance.tags()["git_commit"].startswith("unknown: git says: fatal: bad config line 2")
        assert provenance.fault().startswith("git says: fatal: bad config line 2")

    def test_of_a_network_of_ones_own(self, checkout, work):
        other = work / "ignored"
        other.mkdir()
        (other / "net.py").write_text("")
        assert provenance.tags(other / "net.py")["network_git_commit"].endswith("net.py is not in a git checkout")
        (work / "net.py").write_text("")
        tags = provenance.tags(work / "net.py")
        assert (tags["network_git_commit"], tags["network_git_dirty"]) == (checkout("rev-parse", "HEAD"), "true")

    def test_is_that_of_the_code_which_the_process_has_loaded(self, work, monkeypatch):
        monkeypatch.setattr(provenance, "PACKAGE", work)
        before = provenance.commit_and_state()
        (work / "__init__.py").write_text("")
        subprocess.run(["git", "init"], check=True, capture_output=True)
        subprocess.run(["git", "add", "."], check=True, capture_output=True)
        assert provenance.commit_and_state() == before == (None, False)
