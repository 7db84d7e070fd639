"""Registered models and versions, whatever they are called and however many there are."""

from __future__ import annotations

import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking import queries, store
from cifar_mlflow.tracking.registry import versions

NAMES = ["net", "it's", "net two", "nets"]


@pytest.fixture
def connected(cifar, monkeypatch):
    """A store of which a page holds two entries."""
    monkeypatch.setattr(queries, "PAGE", 2)
    return store.connect()


@pytest.fixture
def uris(connected):
    """Three logged models, of which each of NAMES has as many versions as its place."""
    run_id = connected.client.create_run("0").info.run_id
    logged = [connected.client.create_logged_model("0", source_run_id=run_id) for _ in NAMES[1:]]
    uris = [f"models:/{model.model_id}" for model in logged]
    for place, name in enumerate(NAMES):
        versions.ensure(connected, name)
        for uri in uris[:place]:
            versions.register(connected, name, uri, run_id)
    return uris


def test_a_model_is_found_by_any_name(connected, uris):
    assert [versions.exists(connected, name) for name in [*NAMES, "ne", "it"]] == [True] * 4 + [False] * 2
    assert [model.name for model in versions.registered_models(connected)] == sorted(NAMES)


def test_versions_are_those_of_the_name_and_in_order(connected, uris):
    found = {name: [str(version.version) for version in versions.read_all(connected, name)] for name in NAMES}
    assert found == {"net": [], "it's": ["1"], "net two": ["1", "2"], "nets": ["1", "2", "3"]}


def test_what_is_registered_is_not_registered_again(connected, uris):
    assert versions.register(connected, "nets", uris[1], "") == "2"
    assert versions.version_of(connected, "it's", uris[1]) is None
    versions.ensure(connected, "nets")


def test_a_name_that_is_not_there_is_told_with_what_may_be_meant(connected, uris):
    with pytest.raises(ModelError, match=r"no registered model 'ne' in sqlite:///[^ ]* \(did you mean net\?\)$"):
        versions.find(connected, "ne")
    with pytest.raises(ModelError, match=r"no registered model 'cifar' in .* \(there are: it's, net, net two, nets\)$"):
        versions.find(connected, "cifar")


def test_a_version_is_described_and_tags_are_taken_away(connected, uris):
    versions.set_tags(connected, "nets", "1", {"rejected": "worse", "uri": "http://user:secret@host"})
    versions.describe(connected, "nets", "1", "x" * 9000, {"verdict": "promoted"}, gone=("rejected", "never there"))
    described = versions.read_all(connected, "nets")[0]
    assert described.tags == {"uri": "http://***@host", "verdict": "promoted"}
    assert len(described.description) == versions.DESCRIPTION_LIMIT
