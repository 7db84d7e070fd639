"""All that is read back from MLflow: runs, their configurations and their models."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_mlflow import process_state
from cifar_mlflow.config.training import TrainingConfig, resolve
from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.tracking.reading import runs
from cifar_mlflow.tracking.registry import aliases
from cifar_mlflow.tracking.store import Store, redact, translated_errors
from cifar_mlflow.tracking.writing import digests

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

RUN_ID = re.compile(r"[0-9a-f]{32}")
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what MLflow says of a name that it does not have


@dataclass(frozen=True)
class FoundModel:
    """A logged model and the run that it came from. `weights` is last or best, `uri` is models:/m-..."""

    uri: str
    name: str
    weights: str
    run_id: str
    run_name: str
    experiment_id: str
    run_status: str
    config: TrainingConfig
    dataset_digest: str
    test_digest: str
    tags: dict[str, str]
    """The logged model's own tags."""

    @property
    def test_prefix(self) -> str:
        """What the names begin with under which its run records its test results; `test_*` is the last epoch's."""
        return "test" if self.weights == "last" else f"{self.weights}_test"


def find_model(store: Store, what: str, weights: str = "last") -> FoundModel:
    """The model that `what` names: a run id, models:/m-..., models:/NAME/VERSION, models:/NAME@ALIAS or NAME@ALIAS.

    `weights` (last or best) chooses among the models of a run.

    Raises:
        ModelError: there is none, or it was not logged by this package.
    """
    if RUN_ID.fullmatch(what):
        model = _model_of_run(store, what, weights)
    elif what.startswith("models:/") or ("@" in what and "/" not in what):
        model = _model_of_uri(store, what.removeprefix("models:/"))
    else:
        raise ModelError(
            f"{what!r} names no model; give a run id (32 hex digits), NAME@ALIAS, models:/NAME/VERSION or models:/m-..."
        )
    if str(model.status) != "READY":
        raise ModelError(f"the model {model.model_id} is {model.status}: it was never logged completely")
    if not model.source_run_id:
        raise ModelError(f"the model {model.model_id} belongs to no run, so nothing is known of its data")
    run = find_run(store, model.source_run_id)
    tags = run.data.tags
    if "dataset_digest" not in tags:
        raise ModelError(f"the run {run.info.run_id} was not recorded by cifar-mlflow: it has no dataset digest")
    return FoundModel(
        uri=f"models:/{model.model_id}",
        name=model.name,
        weights=model.tags.get("weights", "last"),
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        experiment_id=run.info.experiment_id,
        run_status=run.info.status,
        config=run_config(run),
        dataset_digest=tags["dataset_digest"],
        test_digest=tags.get("test_digest", ""),
        tags=dict(model.tags),
    )


@dataclass(frozen=True)
class ModelInterface:
    """What a model takes and tells: `image_shape` (height, width, channels) and the names of the classes."""

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]


def model_interface(store: Store, uri: str) -> ModelInterface:
    """What the model itself says of its images and classes; no dataset is needed.

    Raises:
        ModelError: it says nothing of them, or its files are missing.
    """
    from mlflow.models import get_model_info

    with translated_errors(store.uri):
        try:
            info = get_model_info(uri)
            (images,) = info.signature.inputs.inputs
            _, height, width, channels = images.shape
            return ModelInterface((height, width, channels), tuple(info.metadata["classes"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ModelError(f"{uri} does not tell its classes and image size, as models of cifar-mlflow do") from None
        except Exception as error:
            raise ModelError(f"{uri} cannot be loaded: {_first_line(error)}") from error


def load_model(uri: str, tags: Mapping[str, str]) -> Any:
    """The exported program of the model: a function of a uint8 tensor (n, height, width, channels).

    No pickle is loaded, whatever the artifact holds, and nothing that differs from what was logged by the model's
    `tags` (a model without recorded digests is taken as it is).

    Raises:
        ModelError: the artifact is missing, was changed, is damaged or of another kind.
    """
    process_state.set_variable("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    import mlflow.artifacts
    import mlflow.pytorch

    torch_logger = logging.getLogger("torch.export")  # it would print a traceback, for an error that is told below
    before, torch_logger.disabled = torch_logger.disabled, True
    try:
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(mlflow.artifacts.download_artifacts(uri, dst_path=temporary))
            if not (directory / "MLmodel").is_file():  # MLflow copies what it finds, be it nothing
                raise ModelError(f"{uri} cannot be loaded: its files are gone from where it was logged")
            if changed := digests.differences(directory, tags):
                raise ModelError(
                    f"the files of {uri} are not those that were logged ({', '.join(changed)}), so they are not "
                    "loaded; put the original back, or train again"
                )
            return mlflow.pytorch.load_model(str(directory))
    except ModelError:
        raise
    except Exception as error:
        reason = _first_line(error)
        if "pickle" in reason:  # MLflow would tell how to allow it
            reason = "it is a pickle, or holds one, which is never loaded: it could run any code"
        raise ModelError(f"{uri} cannot be loaded: {reason}") from error
    finally:
        torch_logger.disabled = before


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def run_config(run: Run) -> TrainingConfig:
    """The configuration that the run's parameters tell.

    Raises:
        ModelError: they are not a training configuration of this version.
    """
    logged = run.data.params
    known = {name: runs.unquoted(value) for name, value in logged.items() if name in TrainingConfig.model_fields}
    try:
        return resolve(known)
    except ConfigurationError as error:
        raise ModelError(f"the parameters of the run {run.info.run_id} are no configuration: {error}") from error


def tag(store: Store, run_id: str, name: str) -> str | None:
    """The value of a run's tag, or None."""
    value = find_run(store, run_id).data.tags.get(name)
    return None if value is None else str(value)


def find_run(store: Store, run_id: str) -> Run:
    """The run.

    Raises:
        ModelError: there is none.
    """
    from mlflow.exceptions import MlflowException

    with translated_errors(store.uri):
        try:
            return store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise ModelError(_not_here("run", run_id, store)) from None
            raise


def _model_of_run(store: Store, run_id: str, weights: str) -> LoggedModel:
    run = find_run(store, run_id)
    with translated_errors(store.uri):
        outputs = run.outputs.model_outputs if run.outputs else []
        models = [store.client.get_logged_model(output.model_id) for output in outputs]
    for model in models:
        if model.tags.get("weights") == weights:
            return model
    if not models:
        raise ModelError(f"the run {run_id} ({run.info.status}) has no model")
    there = ", ".join(sorted(model.tags.get("weights", "?") for model in models))
    raise ModelError(f"the run {run_id} has no {weights} weights (there are: {there})")


def _model_of_uri(store: Store, name: str) -> LoggedModel:
    from mlflow.exceptions import MlflowException

    # A registered model may be called m-net, too.
    model_id = name if re.fullmatch(r"m-[0-9a-f]+", name) else _model_id_of_version(store, name)
    with translated_errors(store.uri):
        try:
            return store.client.get_logged_model(model_id)
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
            raise ModelError(_not_here("model", f"models:/{model_id}", store)) from None


def _model_id_of_version(store: Store, name: str) -> str:
    """Of the version that NAME/VERSION or NAME@ALIAS names."""
    from mlflow.exceptions import MlflowException

    if "@" not in name and not re.fullmatch(r"[^/]+/\d+", name):
        raise ModelError(f"models:/{name} names no version; give models:/NAME/VERSION or models:/NAME@ALIAS")
    with translated_errors(store.uri):
        try:
            if "@" in name:
                version = store.client.get_model_version_by_alias(*name.rsplit("@", 1))
            else:
                version = store.client.get_model_version(*name.split("/"))
            return str(version.model_id or version.source.removeprefix("models:/"))
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
    registered, wanted = name.rsplit("@" if "@" in name else "/", 1)
    there = aliases.find(store, registered).aliases  # raises if the name itself is not there
    kind, known = "alias", sorted(there)
    if "@" not in name:
        kind, known = "version", [str(version.version) for version in aliases.versions(store, registered)]
    raise ModelError(
        f"{registered!r} in {redact(store.uri)} has no {kind} {wanted} (it has {', '.join(known) or 'none'})"
    )


def _not_here(kind: str, name: str, store: Store) -> str:
    return f"there is no {kind} {name} in {redact(store.uri)}; is MLFLOW_TRACKING_URI the store that it was logged to?"
