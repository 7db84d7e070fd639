"""What a killed process or another hand leaves of an alias: it is told, and put right."""

import json

import pytest

from cifar_mlflow.tracking.registry import aliases, versions
from cifar_mlflow.tracking.registry.aliases import Move

WRITES = [
    *("set_registered_model_tag", "delete_registered_model_tag", "set_model_version_tag"),
    *("set_registered_model_alias", "delete_registered_model_alias", "update_registered_model"),
]


class Killed(BaseException):
    pass


@pytest.fixture
def writes(registry, monkeypatch):
    """The writes so far; `writes.kill(n)` has the process killed before the nth from now."""

    class Writes(list):
        left = None

        def kill(self, number):
            self.left = number

    done = Writes()

    def watched(name, real):
        def write(*arguments):
            if done.left is not None:
                if done.left == 0:
                    done.left = None
                    raise Killed
                done.left -= 1
            done.append((name, *arguments[1:]))
            return real(*arguments)

        return write

    for name in WRITES:
        monkeypatch.setattr(registry, name, watched(name, getattr(registry, name)), raising=False)
    return done


@pytest.fixture
def move(store, registry):
    for version in "1234":
        registry.versions[version] = {}

    def make(version, action="promote", alias="champion", **judged):
        aliases.move(store, "tiny", alias, action, version, **judged)

    return make


def record(store, alias="champion"):
    found = aliases.moves(store, "tiny", alias)
    return [(move.action, move.before, move.version, move.state) for move in found]


def faults(store):
    return aliases.faults(store, "tiny", "champion")


def repair(store):
    return aliases.repair(store, "tiny", "champion")


# ------------------------------------------------------------------------------------------------------ killed between


@pytest.mark.parametrize(
    ("action", "target", "number", "champion", "previous"),
    [
        *(("promote", "3", number, "2", "1") for number in (0, 1, 2)),
        ("promote", "3", 3, "3", "2"),
        *(("rollback", "1", number, "2", "1") for number in (0, 1)),
        *(("rollback", "1", number, "1", None) for number in (2, 3)),
    ],
)
def test_killed_before_any_write_it_is_put_right(
    store, registry, move, writes, action, target, number, champion, previous
):
    move("1")
    move("2")
    writes.kill(number)
    with pytest.raises(Killed):
        move(target, action)
    assert bool(faults(store)) == (number > 0)
    repair(store)
    assert (registry.aliases["champion"], registry.aliases.get("previous"), faults(store)) == (champion, previous, [])
    last = (action, "2", champion, "done") if champion == target else ("promote", "1", "2", "done")
    assert record(store)[-1] == last
    # What was begun is told no more, and the numbers go on.
    move("4")
    assert [each.number for each in aliases.moves(store, "tiny")] == list(range(1, len(record(store)) + 1))


def test_a_move_that_was_begun_and_never_ended_is_told(store, move, writes):
    move("1")
    writes.kill(1)
    with pytest.raises(Killed):
        move("2")
    (told,) = faults(store)
    (begun,) = [each for each in aliases.moves(store, "tiny") if each.state == "intended"]
    assert told == f"the promote of version 2 as champion ({begun.time}, by {begun.by}) was begun and never ended"
    assert [each.version for each in repair(store)] == ["1"]


def test_a_move_that_came_to_pass_before_its_end_was_written_is_done(store, registry, move):
    move("1")
    move("2")
    key = max(registry.tags)
    registry.tags[key] = json.dumps(json.loads(registry.tags[key]) | {"state": "intended"})
    assert len(faults(store)) == 1
    assert [each.version for each in repair(store)] == ["1", "2"]
    assert json.loads(registry.tags[key])["state"] == "done"


def test_where_all_is_right_nothing_is_written(store, move, writes):
    move("1")
    move("2")
    writes.clear()
    assert [each.version for each in repair(store)] == ["1", "2"]
    assert (faults(store), writes) == ([], [])


def test_previous_never_names_what_is_rolled_back(store, registry, move, writes):
    """If the process is killed in between, a second rollback would bring the bad model back."""
    for version in "123":
        move(version)
    writes.clear()
    move("2", "rollback")
    named = [(alias, version) for write, alias, *version in writes if write == "set_registered_model_alias"]
    assert named == [("champion", ["2"]), ("previous", ["1"])]


# -------------------------------------------------------------------------------------------------- by another hand


@pytest.mark.parametrize("version", ["2", None])
def test_an_alias_that_somebody_moved_is_told_and_becomes_a_move(store, registry, move, version):
    move("1")
    if version:
        registry.aliases["champion"] = version
    else:
        del registry.aliases["champion"]
    assert faults(store) == [f"champion names version {version}, by its record version 1"]
    assert [(each.action, each.version) for each in repair(store)] == [("promote", "1"), ("outside", version)]
    assert record(store)[-1] == ("outside", "1", version, "done")
    assert aliases.moves(store, "tiny")[-1].by == "unknown"
    assert (registry.aliases.get("previous"), faults(store)) == ("1", [])


def test_the_alias_previous_is_put_right(store, registry, move):
    move("1")
    move("2")
    registry.aliases["previous"] = "2"
    assert faults(store) == ["previous names version 2, and a rollback would bring back version 1"]
    repair(store)
    assert (registry.aliases["previous"], faults(store)) == ("1", [])
    del registry.versions["1"]
    assert faults(store) == ["previous names version 1, and a rollback would bring back version None"]
    repair(store)
    assert ("previous" in registry.aliases, faults(store)) == (False, [])


def test_an_alias_is_put_right_by_its_own_moves_alone(store, registry, move):
    move("1")
    move("2", alias="staging")
    move("3", alias="staging")
    assert [record(store), faults(store)] == [[("promote", None, "1", "done")], []]
    assert (registry.aliases["previous-staging"], registry.aliases.get("previous")) == ("2", None)
    assert [aliases.previous_alias(alias) for alias in ("champion", "staging", "a")] == [
        *("previous", "previous-staging", "previous-a")
    ]


# ------------------------------------------------------------------------------------------------ where it came to be


def done(*moves):
    return [
        Move(number, "champion", action, version, None, "2026-11-24T21:05:00+00:00", "ann", "0")
        for number, (action, version) in enumerate(moves, 1)
    ]


@pytest.mark.parametrize(
    ("moves", "standing"),
    [
        ([], []),
        ([("promote", "1")], ["1"]),
        ([("promote", "1"), ("promote", "2"), ("rollback", "1")], ["1"]),
        ([("promote", "1"), ("promote", "2"), ("promote", "3"), ("rollback", "1")], ["1"]),
        ([("promote", "1"), ("promote", "2"), ("rollback", "1"), ("promote", "3")], ["1", "3"]),
        ([("promote", "1"), ("promote", "1")], ["1"]),
        ([("promote", "1"), ("promote", "2"), ("promote", "1")], ["1", "2", "1"]),
        ([("promote", "1"), ("rollback", "7")], ["7"]),
        ([("promote", "1"), ("outside", None), ("promote", "2")], ["1", None, "2"]),
        ([("outside", None)], []),
    ],
)
def test_standing_is_what_was_not_rolled_back(moves, standing):
    assert [move.version for move in aliases.standing(done(*moves))] == standing


def test_a_rollback_brings_back_the_latest_that_is_there(store, registry):
    registry.versions = {"1": {}, "2": {}, "3": {}}
    moves = done(("promote", "1"), ("promote", "2"), ("promote", "3"), ("promote", "2"), ("promote", "3"))
    assert aliases.rollback_target(store, "tiny", moves) == "2"
    del registry.versions["2"]
    assert aliases.rollback_target(store, "tiny", moves) == "1"
    del registry.versions["1"]
    assert aliases.rollback_target(store, "tiny", moves) is None
    assert aliases.rollback_target(store, "tiny", []) is None


# ------------------------------------------------------------------------------------------------------------ as told

AT = "2026-11-24T21:05:59+00:00"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "champion to version 2, promoted by ann"),
        ({"before": "1", "accuracy": 97.5},
         "champion from version 1 to version 2, promoted by ann (test accuracy 97.50%)"),
        ({"accuracy": 0.0, "on": "fresh test"}, "champion to version 2, promoted by ann (fresh test accuracy 0.00%)"),
        ({"action": "rollback", "reason": "slow"}, "champion to version 2, rolled back by ann, slow"),
        ({"action": "outside", "version": None, "before": "2"},
         "champion from version 2 to no version, moved outside cifar-mlflow"),
    ],
)  # fmt: skip
def test_a_move_is_told_in_a_sentence(changes, sentence):
    move = Move(**{"number": 1, "alias": "champion", "action": "promote", "version": "2", "before": None, "time": AT,
                   "by": "ann", "commit": "0"} | changes)  # fmt: skip
    assert move.sentence == f"2026-11-24 21:05 UTC: {sentence}"


def sentences(store):
    return [move.sentence for move in aliases.moves(store, "tiny")]


def test_the_latest_moves_are_the_description_of_the_model(store, registry, move):
    registry.description = None
    move("1")
    move("2")
    first, second = sentences(store)
    assert registry.description == (
        f"{aliases.OUR_DESCRIPTION} The latest moves of its aliases (`cifar-mlflow history` has all):\n"
        f"\n- {second}\n- {first}"
    )
    move("3")
    assert registry.description.count("\n- ") == 3


def test_a_description_has_as_many_moves_as_there_is_room_for(store, registry, move, monkeypatch):
    registry.description = ""
    move("1")
    monkeypatch.setattr(versions, "DESCRIPTION_LIMIT", len(registry.description) + 30)
    move("2")
    assert registry.description.endswith(f"\n- {sentences(store)[-1]}")
    assert (registry.description.count("\n- "), len(registry.description) <= versions.DESCRIPTION_LIMIT) == (1, True)


def test_a_move_that_did_not_come_to_pass_is_not_in_the_description(store, registry, move, writes):
    registry.description = ""
    move("1")
    writes.kill(1)
    with pytest.raises(Killed):
        move("2")
    move("3")
    assert "to version 2" not in registry.description


def test_what_a_user_has_written_stays(store, registry, move):
    move("1")
    assert registry.description == "our own words"


def test_a_reason_is_as_long_as_a_tag_can_be(store, move):
    move("1", reason="x" * 3000)
    assert aliases.moves(store, "tiny")[0].reason == "x" * 2000
