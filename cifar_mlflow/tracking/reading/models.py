"""Logged models: found by any of their names, downloaded and loaded."""

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_mlflow import process_state
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import no_room
from cifar_mlflow.errors import ModelError
from cifar_mlflow.memory import is_out_of_memory
from cifar_mlflow.records import CALIBRATED
from cifar_mlflow.text import first_line
from cifar_mlflow.tracking import queries
from cifar_mlflow.tracking.reading import naming, runs, sweeps
from cifar_mlflow.tracking.registry import versions
from cifar_mlflow.tracking.store import LoggedModel, Store, redact
from cifar_mlflow.tracking.writing import digests


@dataclass(frozen=True)
class FoundModel:
    """A logged model and the run that it came from. `weights` is one of `records.WEIGHTS`, `uri` models:/m-..."""

    uri: str
    weights: str
    run_id: str
    run_name: str
    experiment_id: str
    run_status: str
    config: TrainingConfig
    dataset_digest: str
    tags: dict[str, str]
    """The logged model's own tags."""
    run_tags: dict[str, str]

    def test_prefix(self, dataset: str | None = None) -> str:
        """What the names of its test results begin with at its run; `test_*` is the last epoch's.

        `dataset` is the name of another dataset than its own, if it was tested on that one.
        """
        own = "test" if self.weights == "last" else f"{self.weights}_test"
        return own if dataset is None else f"{own}_{re.sub(r'[^0-9A-Za-z_.-]', '_', dataset)}"


@dataclass(frozen=True)
class LoadableModel:
    """A logged model as it can be loaded: where its files are, and the tags that hold their digests."""

    uri: str
    tags: dict[str, str]


def find_model(store: Store, what: str, weights: str = "last") -> FoundModel:
    """The model that `what` names: a run, models:/m-..., models:/NAME/VERSION, models:/NAME@ALIAS or NAME@ALIAS.

    A run is named as in `naming.find`; a sweep stands for its winner. `weights` (`records.WEIGHTS`) chooses among the
    models of a run. ModelError if there is none, it was not logged by this package, or its run was deleted.
    """
    model = _find_logged(store, what, weights)
    if not model.source_run_id:
        raise ModelError(f"the model {model.model_id} belongs to no run, so nothing is known of its data")
    try:
        run = runs.find_kept(store, model.source_run_id)
    except ModelError as error:
        raise ModelError(
            f"{error} (the model {model.model_id} itself can still be used: cifar-mlflow predict)"
        ) from None
    tags = run.data.tags
    if "dataset_digest" not in tags:
        raise ModelError(f"the run {run.info.run_id} was not recorded by cifar-mlflow: it has no dataset digest")
    return FoundModel(
        uri=f"models:/{model.model_id}",
        weights=model.tags.get("weights", "last"),
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        experiment_id=run.info.experiment_id,
        run_status=run.info.status,
        config=runs.configuration(run),
        dataset_digest=tags["dataset_digest"],
        tags=dict(model.tags),
        run_tags=dict(tags),
    )


def find_loadable(store: Store, what: str, weights: str = "last") -> LoadableModel:
    """The model that `what` names, as in `find_model`; its run may be deleted, for the model tells its own classes.

    ModelError if there is none.
    """
    model = _find_logged(store, what, weights)
    return LoadableModel(f"models:/{model.model_id}", dict(model.tags))


def _find_logged(store: Store, what: str, weights: str) -> LoggedModel:
    if _is_uri(what):
        model = _model_of_uri(store, what.removeprefix("models:/"))
    else:
        model = _model_of_run(store, _named_run(store, what), weights)
    if str(model.status) != "READY":
        raise ModelError(f"the model {model.model_id} is {model.status}: it was never logged completely")
    return model


def run_of(store: Store, what: str) -> str:
    """The id of the run that `what` names, or that the model came from; ModelError as `find_model` raises it."""
    return find_model(store, what).run_id if _is_uri(what) else _named_run(store, what)


def _is_uri(what: str) -> bool:
    return what.startswith("models:/") or ("@" in what and "/" not in what)


def _named_run(store: Store, what: str) -> str:
    if found := naming.find(store, what):
        return found
    registered = {f"{model.name}@{alias}" for model in versions.registered_models(store) for alias in model.aliases}
    hint = naming.hint(store, what, registered)
    raise ModelError(
        f"{what!r} names no model in {redact(store.uri)}{hint}; "
        f"give {naming.RUN}, NAME@ALIAS, models:/NAME/VERSION or models:/m-..."
    )


def _model_of_run(store: Store, run_id: str, weights: str) -> LoggedModel:
    run = runs.find(store, run_id)
    if run.data.tags.get("kind") == "sweep":
        return _model_of_run(store, sweeps.winner(store, run_id), weights)
    found = queries.models_of_run(store, run.info.experiment_id, run_id)
    complete = {model.tags.get("weights", "?"): model for model in found if str(model.status) == "READY"}
    if weights in complete:
        return complete[weights]
    if not complete:
        raise ModelError(f"the run {run_id} ({run.info.status}) has no model")
    remedy = f"; `cifar-mlflow calibrate {run_id}` makes them" if weights in CALIBRATED.values() else ""
    raise ModelError(f"the run {run_id} has no {weights} weights (there are: {', '.join(sorted(complete))}){remedy}")


def _model_of_uri(store: Store, name: str) -> LoggedModel:
    # A registered model may be called m-net, too.
    model_id = name if re.fullmatch(r"m-[0-9a-f]+", name) else _model_id_of_version(store, name)
    model = queries.find(store.client.get_logged_model, model_id)
    if model is None:
        raise ModelError(runs.not_here("model", f"models:/{model_id}", store))
    return model


def _model_id_of_version(store: Store, name: str) -> str:
    """Of the version that NAME/VERSION or NAME@ALIAS names."""
    by_alias = "@" in name
    if not by_alias and not re.fullmatch(r"[^/]+/\d{1,9}", name):
        raise ModelError(f"models:/{name} names no version; give models:/NAME/VERSION or models:/NAME@ALIAS")
    registered, wanted = name.rsplit("@" if by_alias else "/", 1)
    request = store.client.get_model_version_by_alias if by_alias else store.client.get_model_version
    if version := queries.find(request, registered, wanted):
        return str(version.model_id or version.source.removeprefix("models:/"))
    known = sorted(versions.find(store, registered).aliases)  # raises if the name itself is not there
    if not by_alias:
        known = [str(version.version) for version in versions.read_all(store, registered)]
    raise ModelError(
        f"{registered!r} in {redact(store.uri)} has no {'alias' if by_alias else 'version'} {wanted} "
        f"(it has {', '.join(known) or 'none'})"
    )


@dataclass(frozen=True)
class ModelInterface:
    """What a model takes and tells: `image_shape` (height, width, channels) and the names of the classes."""

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]


def model_interface(uri: str) -> ModelInterface:
    """What the model itself says of its images and classes; ModelError if nothing, or its files are missing."""
    from mlflow.models import get_model_info

    with _told_if_it_cannot_be_loaded(uri):
        try:
            info = get_model_info(uri)
            (images,) = info.signature.inputs.inputs
            _, height, width, channels = images.shape
            return ModelInterface((height, width, channels), tuple(info.metadata["classes"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ModelError(f"{uri} does not tell its classes and image size, as models of cifar-mlflow do") from None


def download(uri: str, directory: Path) -> Path:
    """Where in `directory` a copy of the model's files was put; ModelError if there are none."""
    import mlflow.artifacts

    with _told_if_it_cannot_be_loaded(uri):
        copy = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(directory)))
    if not (copy / "MLmodel").is_file():  # MLflow copies what it finds, even if that is nothing
        raise ModelError(f"{uri} cannot be loaded: its files are gone from where it was logged")
    return copy


def load_model(uri: str, tags: Mapping[str, str]) -> Any:
    """The exported program of the model: a function of a uint8 tensor (n, height, width, channels).

    No pickle is loaded, and no file that differs from what was logged according to the model's `tags` (a model
    without recorded digests is taken as it is). ModelError if files are missing, changed, damaged or of another kind.
    """
    process_state.set_variable("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    import mlflow.artifacts
    import mlflow.pytorch

    torch_logger = logging.getLogger("torch.export")  # it would print a traceback, for an error that is told below
    before, torch_logger.disabled = torch_logger.disabled, True
    try:
        with _told_if_it_cannot_be_loaded(uri), tempfile.TemporaryDirectory() as temporary:
            directory = download(uri, Path(temporary))
            if changed := digests.differences(directory, tags):
                raise ModelError(
                    f"the files of {uri} are not those that were logged ({', '.join(changed)}), so they are not "
                    "loaded; put the original back, or train again"
                )
            return mlflow.pytorch.load_model(str(directory))
    finally:
        torch_logger.disabled = before


@contextmanager
def _told_if_it_cannot_be_loaded(uri: str) -> Iterator[None]:
    """ModelError for whatever goes wrong in the block but want of memory: each artifact store has errors of its own."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = no_room(error) or first_line(error)
        if isinstance(error, AttributeError | KeyError | TypeError):  # of MLflow's, which expects more in a file
            reason = f"its files are damaged ({type(error).__name__}: {reason})"
        if "pickle" in reason:  # MLflow gives this error no code of its own, and would tell how to allow it
            reason = "it is a pickle, or holds one, which is never loaded: it could run any code"
        raise ModelError(f"{uri} cannot be loaded: {reason}") from error
