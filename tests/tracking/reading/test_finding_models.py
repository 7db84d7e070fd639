"""A model is found by each of its names, and what is not there is told with what is."""

import numpy as np
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.reading import models, recorded_training
from cifar_mlflow.tracking.reading.models import ModelInterface
from cifar_mlflow.tracking.registry import versions
from cifar_mlflow.tracking.writing import digests

NOWHERE = "f" * 32


@pytest.fixture
def run_id(training):
    return training(seed=3)


@pytest.fixture
def registered(store, run_id, logged):
    """The ids of two models, last and best, which are versions 1 and 2 of `net`; `two words` has the second."""
    ids = [logged(run_id), logged(run_id, "best")]
    for name, of in (("net", ids), ("two words", ids[1:])):
        versions.ensure(store, name)
        for model_id in of:
            versions.register(store, name, f"models:/{model_id}", run_id)
    store.client.set_registered_model_alias("net", "champion", "2")
    return ids


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("{run}", 0),
        ("models:/{last}", 0),
        ("models:/{best}", 1),
        ("models:/net/1", 0),
        ("models:/net/2", 1),
        ("models:/two words/1", 1),
        ("models:/net@champion", 1),
        ("net@champion", 1),
    ],
)
def test_a_model_by_each_of_its_names(store, run_id, registered, name, which):
    found = models.find_model(store, name.format(run=run_id, last=registered[0], best=registered[1]))
    assert (found.uri, found.weights) == (f"models:/{registered[which]}", ("last", "best")[which])
    assert (found.run_id, found.run_name, found.run_status) == (run_id, "digits-seed0", "FINISHED")
    assert (found.config.seed, found.dataset_digest) == (3, "0123456789abcdef")
    assert found.experiment_id == store.client.get_run(run_id).info.experiment_id
    assert found.tags["weights"] == found.weights
    assert found.run_tags["kind"] == "single"


def test_weights_choose_among_the_models_of_a_run(store, run_id, registered):
    assert models.find_model(store, run_id, "best").uri == f"models:/{registered[1]}"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("net", "'net' names no model in sqlite.*; give a run"),
        ("some/net@champion", "names no model"),
        ("models:/net", "models:/net names no version; give models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/net/one", "names no version"),
        ("models:/net/1/2", "names no version"),
        ("models:/net/3", r"'net' in sqlite:///\S* has no version 3 \(it has 1, 2\)"),
        ("net@staging", r"'net' in sqlite:///\S* has no alias staging \(it has champion\)"),
        ("two words@staging", r"has no alias staging \(it has none\)"),
        ("nobody@champion", r"there is no registered model 'nobody'"),
        ("models:/nobody/1", r"there is no registered model 'nobody'"),
        (f"models:/m-{NOWHERE}", f"there is no model models:/m-{NOWHERE} in sqlite"),
        (NOWHERE, f"there is no run {NOWHERE} in sqlite:///.*; is MLFLOW_TRACKING_URI the store"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(store, registered, name, told):
    with pytest.raises(ModelError, match=told):
        models.find_model(store, name)


def test_a_run_without_the_wanted_weights_tells_which_it_has(store, run_id, logged):
    with pytest.raises(ModelError, match=rf"the run {run_id} \(FINISHED\) has no model"):
        models.find_model(store, run_id)
    logged(run_id, "best")
    logged(run_id, "averaged")
    begun = logged(run_id, ready=False)
    with pytest.raises(ModelError, match=r"has no last weights \(there are: averaged, best\)"):
        models.find_model(store, run_id)
    with pytest.raises(ModelError, match=f"the model {begun} is PENDING: it was never logged completely"):
        models.find_model(store, f"models:/{begun}")


def test_a_model_of_no_run_can_be_loaded_but_says_nothing_of_data(store, logged):
    model_id = logged()
    assert models.find_loadable(store, f"models:/{model_id}").uri == f"models:/{model_id}"
    with pytest.raises(ModelError, match=f"the model {model_id} belongs to no run"):
        models.find_model(store, f"models:/{model_id}")


def test_a_model_of_a_run_that_is_not_ours(store, training, logged):
    run_id = training(tags={"dataset_digest": None})
    with pytest.raises(ModelError, match="was not recorded by cifar-mlflow: it has no dataset digest"):
        models.find_model(store, f"models:/{logged(run_id)}")


@pytest.mark.parametrize("with_experiment", [False, True])
def test_a_model_of_a_deleted_run_can_still_be_used(store, run_id, registered, with_experiment):
    experiment_id = store.client.get_run(run_id).info.experiment_id
    store.client.delete_experiment(experiment_id) if with_experiment else store.client.delete_run(run_id)
    whose, command = ("", f"runs restore --run-id {run_id}")
    if with_experiment:
        whose, command = " with its experiment 'digits'", f"experiments restore -x {experiment_id}"
    with pytest.raises(ModelError) as raised:
        models.find_model(store, "net@champion")
    assert str(raised.value) == (
        f"the run {run_id} was deleted{whose}; restore it by `mlflow {command}` (the model {registered[1]} itself can "
        "still be used: cifar-mlflow predict)"
    )
    assert models.find_loadable(store, "net@champion").tags["weights"] == "best"


@pytest.mark.parametrize(
    ("weights", "dataset", "prefix"),
    [
        ("last", None, "test"),
        ("best", None, "best_test"),
        ("last", "fresh", "test_fresh"),
        ("best", "my data/ä.2", "best_test_my_data__.2"),
    ],
)
def test_results_are_called_by_the_weights_and_the_other_dataset(store, run_id, registered, weights, dataset, prefix):
    assert models.find_model(store, run_id, weights).test_prefix(dataset) == prefix


# ------------------------------------------------------------------------------------------------------- its files


@pytest.fixture
def files(store, run_id, logged, tmp_path):
    """Logs a file as all that a model has; returns the model's address."""

    def log(name, content):
        model_id = logged(run_id)
        (tmp_path / name).write_text(content)
        store.client.log_model_artifact(model_id, str(tmp_path / name))
        return f"models:/{model_id}"

    return log


def test_files_that_are_gone_are_told(store, files, tmp_path):
    uri = files("weights.bin", "x")
    with pytest.raises(ModelError, match=f"{uri} cannot be loaded: its files are gone from where it was logged"):
        models.download(uri, tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded: "):
        models.download(f"models:/m-{NOWHERE}", tmp_path)


@pytest.mark.parametrize("content", ["flavors: {}\n", "flavors: {}\nmetadata: {classes: [a]}\n"])
def test_a_model_that_does_not_tell_its_images_and_classes(store, files, content):
    with pytest.raises(ModelError, match="does not tell its classes and image size, as models of cifar-mlflow do"):
        models.model_interface(files("MLmodel", f"{content}model_uuid: x\n"))


def test_a_model_tells_its_images_and_classes(store, files):
    images, answers = TensorSpec(np.dtype("uint8"), (-1, 8, 6, 1)), TensorSpec(np.dtype("float32"), (-1, 2))
    signature = ModelSignature(Schema([images]), Schema([answers]))
    told = Model(signature=signature, metadata={"classes": ["cat", "dog"]}).to_yaml()
    assert models.model_interface(files("MLmodel", told)) == ModelInterface((8, 6, 1), ("cat", "dog"))


def test_a_model_whose_files_were_changed_is_not_loaded(store, files):
    uri = files("MLmodel", "flavors: {}\n")
    with pytest.raises(ModelError, match=r"are not those that were logged \(MLmodel was changed, a is missing\), so"):
        models.load_model(uri, {digests.TAG: '{"MLmodel": "0", "a": "1"}'})
    with pytest.raises(ModelError, match="cannot be loaded: "):
        models.load_model(uri, {})


# ------------------------------------------------------------------------------------------------ as a training again


def test_a_training_is_found_by_its_run_and_by_its_model(store, run_id, registered):
    for name in (run_id, "net@champion"):
        found = recorded_training.find(store, name)
        assert (found.run_id, found.name, found.status, found.experiment) == (
            *(run_id, "digits-seed0", "FINISHED", "digits"),
        )
        assert (found.config.seed, found.tags["dataset_digest"]) == (3, "0123456789abcdef")


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ({"kind": "sweep"}, "is the parent of a sweep and trained nothing itself; name one of its runs"),
        ({"kind": "job"}, "was made by `mlflow run` for another command and trained nothing"),
        ({"device": None}, "was not recorded by cifar-mlflow, or broke off before .*: it has no tag device"),
    ],
)
def test_what_is_no_training(store, training, tags, told):
    with pytest.raises(ModelError, match=told):
        recorded_training.find(store, training("KILLED", tags=tags))


def test_a_training_whose_experiment_alone_was_deleted(store, training):
    run_id = training(experiment="gone")
    experiment_id = store.client.get_run(run_id).info.experiment_id
    store.client.delete_experiment(experiment_id)
    store.client.restore_run(run_id)
    with pytest.raises(ModelError, match=f"was deleted; restore it by `mlflow experiments restore -x {experiment_id}`"):
        recorded_training.find(store, run_id)
