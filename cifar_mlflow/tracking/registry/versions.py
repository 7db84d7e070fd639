"""Registered models and their versions: found, made, described."""

import re
from collections.abc import Collection, Mapping

from cifar_mlflow.errors import ModelError, TrackingError
from cifar_mlflow.text import did_you_mean
from cifar_mlflow.tracking import queries
from cifar_mlflow.tracking.store import ModelVersion, RegisteredModel, Store, redact

DESCRIPTION_LIMIT = 5000  # characters, on PostgreSQL


def registered_models(store: Store) -> list[RegisteredModel]:
    """All of them, in the order of their names."""
    found = queries.search_all(store.client.search_registered_models)
    return sorted(found, key=lambda model: model.name)


def exists(store: Store, name: str) -> bool:
    """Whether there is a registered model of that name."""
    return queries.find(store.client.get_registered_model, name) is not None


def find(store: Store, name: str) -> RegisteredModel:
    """The registered model `name`; ModelError if there is none."""
    model = queries.find(store.client.get_registered_model, name)
    if model is None:
        known = [each.name for each in registered_models(store)]
        there = did_you_mean(name, known) or f" (there are: {', '.join(known) or 'none'})"
        raise ModelError(f"there is no registered model {name!r} in {redact(store.uri)}{there}")
    return model


def ensure(store: Store, name: str) -> None:
    """Makes the registered model `name`, if it is new."""
    try:
        store.client.create_registered_model(name)
    except TrackingError as error:
        if queries.error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise


def read_all(store: Store, name: str) -> list[ModelVersion]:
    """Every version of the registered model, the oldest first."""
    # MLflow's filter cannot hold every name; without a filter it finds the versions of all models.
    condition = f"name='{name}'" if re.fullmatch(r"[\w. -]+", name) else None
    found = queries.search_all(store.client.search_model_versions, condition)
    return sorted((each for each in found if each.name == name), key=lambda version: int(version.version))


def version_of(store: Store, name: str, model_uri: str) -> str | None:
    """The version that `model_uri` (models:/m-...) is registered as, or None."""
    return next((str(each.version) for each in read_all(store, name) if each.source == model_uri), None)


def register(store: Store, name: str, model_uri: str, run_id: str) -> str:
    """Registers the logged model, or finds the version that it is already; to be called under the name's lease."""
    if existing := version_of(store, name, model_uri):
        return existing
    model_id = model_uri.removeprefix("models:/")
    made = store.client.create_model_version(name, model_uri, run_id, model_id=model_id, await_creation_for=None)
    return str(made.version)


def describe(
    store: Store, name: str, version: str, description: str, tags: Mapping[str, str], gone: Collection[str] = ()
) -> None:
    """Writes a version's description and `tags`, and removes the tags `gone`."""
    store.client.update_model_version(name, version, redact(description)[:DESCRIPTION_LIMIT])
    set_tags(store, name, version, tags)
    for key in store.client.get_model_version(name, version).tags.keys() & gone:
        store.client.delete_model_version_tag(name, version, key)


def set_tags(store: Store, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Writes tags of a version."""
    for key, value in tags.items():
        store.client.set_model_version_tag(name, version, key, redact(value)[:5000])
