"""Records of the registry that another hand has changed: told of, with what to do, or passed over if that is safe."""

import json

import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.jobs import history
from cifar_mlflow.tracking.registry import aliases, lease

MOVE = {
    "number": 1, "alias": "champion", "action": "promote", "version": "1", "before": None,
    "time": "2026-01-01T00:00:00+00:00", "by": "ann", "commit": "unknown",
}  # fmt: skip
DAMAGED = [
    "garbage", "null", "[]", "{}", json.dumps(MOVE | {"number": "first"}), json.dumps(MOVE | {"action": "stolen"}),
    json.dumps(MOVE | {"time": "yesterday"}), json.dumps(MOVE | {"accuracy": "high"}),
    json.dumps(MOVE | {"version": 1}),
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_move_is_named_with_what_removes_it(store, registry, text):
    registry.tags[f"{aliases.PREFIX}000001"] = text
    with pytest.raises(ModelError) as told:
        aliases.moves(store, "tiny")
    assert f"delete_registered_model_tag('tiny', '{aliases.PREFIX}000001')" in str(told.value)


def test_an_archived_move_is_named_at_its_version(store, registry):
    registry.versions["3"] = {f"{aliases.PREFIX}000001": "garbage"}
    with pytest.raises(ModelError, match=r"delete_model_version_tag\('tiny', '3', 'mlflow"):
        aliases.moves(store, "tiny")


def test_what_a_newer_version_adds_is_passed_over(store, registry):
    registry.tags[f"{aliases.PREFIX}000001"] = json.dumps(MOVE | {"weather": "fine"})
    (move,) = aliases.moves(store, "tiny")
    assert (move.version, move.sentence) == ("1", "2026-01-01 00:00 UTC: champion to version 1, promoted by ann")


@pytest.mark.parametrize("text", ["garbage", "null", "[]", "{}", '{"number": "x", "expires": 1}', '{"number": 1}'])
def test_a_ticket_keeps_nobody_waiting(store, registry, text):
    key = f"{lease.PREFIX}other"
    registry.tags[key] = text
    assert len(lease.left_behind(store, "tiny")) == 1
    with lease.lease(store, "tiny", on_wait=pytest.fail) as turn:
        turn.check()
    assert key not in registry.tags


@pytest.mark.parametrize(("text", "accuracy"), [("97.50", 97.5), ("garbage", None), (None, None)])
def test_an_accuracy_that_is_no_number_is_none(text, accuracy):
    assert history._number(text) == accuracy
