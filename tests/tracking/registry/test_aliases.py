"""The record of an alias: what stays where whoever waits for a turn reads it, and who has been champion."""

import pytest

from cifar_mlflow.tracking.registry import aliases


@pytest.fixture
def promote(store, registry):
    """Makes a version champion."""

    def move(version, **judged):
        registry.versions.setdefault(version, {})
        aliases.move(store, "tiny", "champion", "promote", version, **judged)

    return move


def test_a_registered_model_holds_the_latest_moves_alone_and_none_is_lost(store, registry, promote):
    for number in range(1, aliases.KEPT + 31):
        promote(str(number))
    assert len(registry.tags) == aliases.KEPT
    numbers = list(range(1, aliases.KEPT + 31))
    record = aliases.moves(store, "tiny")
    assert [move.number for move in record] == numbers
    assert [move.version for move in record] == list(map(str, numbers))
    assert aliases.rollback_target(store, "tiny", record) == str(numbers[-2])


def test_a_store_with_many_moves_is_relieved_in_steps(store, registry, promote, monkeypatch):
    monkeypatch.setattr(aliases, "KEPT", 500)
    for number in range(1, 41):
        promote(str(number))
    monkeypatch.setattr(aliases, "KEPT", 5)
    monkeypatch.setattr(aliases, "ARCHIVED_AT_ONCE", 20)
    promote("41")
    assert len(registry.tags) == 21
    promote("42")
    assert len(registry.tags) == 5
    assert len(aliases.moves(store, "tiny")) == 42


def test_a_move_that_was_killed_while_it_was_archived_is_told_once(store, registry, promote):
    promote("1")
    promote("2")
    registry.versions["1"] |= {key: value for key, value in registry.tags.items() if key.endswith("1")}
    assert [move.version for move in aliases.moves(store, "tiny")] == ["1", "2"]


def test_who_was_rolled_back_is_no_champion(store, registry, promote):
    promote("1", accuracy=90.0)
    promote("2", accuracy=99.0)
    aliases.move(store, "tiny", "champion", "rollback", "1")
    promote("3", accuracy=89.0)
    assert [(move.version, move.accuracy) for move in aliases.champions(store, "tiny", "champion")] == [
        ("1", 90.0),
        ("3", 89.0),
    ]
