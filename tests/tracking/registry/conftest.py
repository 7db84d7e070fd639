"""A registry in memory, for what is a matter of tags alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cifar_mlflow.tracking.store import Store


class Registry:
    """As much of MLflow's client as the lease and the aliases of the registered model `tiny` use."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.description = "our own words"
        self.removals_fail = False

    def get_registered_model(self, name):
        about = {"tags": dict(self.tags), "aliases": dict(self.aliases), "description": self.description}
        return SimpleNamespace(name=name, **about)

    def update_registered_model(self, name, description):
        self.description = description

    def search_model_versions(self, condition=None, **page):
        entries = [SimpleNamespace(name="tiny", version=each, tags=dict(tags)) for each, tags in self.versions.items()]
        return SimpleList(entries)

    def set_registered_model_tag(self, name, key, value):
        self.tags[key] = value

    def delete_registered_model_tag(self, name, key):
        if self.removals_fail:
            raise ConnectionError("the server went away")
        del self.tags[key]

    def set_model_version_tag(self, name, version, key, value):
        self.versions[version][key] = value

    def set_registered_model_alias(self, name, alias, version):
        self.aliases[alias] = version

    def delete_registered_model_alias(self, name, alias):
        del self.aliases[alias]


class SimpleList(list):
    token = None


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def store(registry) -> Store:
    return Store(registry, "sqlite:///nowhere.db", None)
