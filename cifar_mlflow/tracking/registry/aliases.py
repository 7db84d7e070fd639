"""The aliases of registered models, and the record of every move of one.

Each move is a hidden tag of the registered model. It is written as intended, then the alias moves, then it is marked
done; so whoever comes next can tell what a process that was killed in between has left, and `repair` does. An alias
that somebody moved by other means becomes a move of its own, by `outside`. Moves before the latest `KEPT` are tags of
the versions that they moved to: whoever waits for a turn reads the registered model's tags over and over.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from cifar_mlflow.errors import ModelError
from cifar_mlflow.text import shown
from cifar_mlflow.tracking.registry import versions
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import provenance

CHAMPION = "champion"
PREFIX = "mlflow.cifar_mlflow.move."  # MLflow's UI does not show tags that begin with mlflow.
KEPT = 50  # moves at the registered model itself
ARCHIVED_AT_ONCE = 100  # of a registered model with more than a few too many, so that a turn stays short
OUR_DESCRIPTION = "Aliases are moved by `cifar-mlflow promote`, which proves a model before."


Action = Literal["promote", "rollback", "outside"]


@dataclass(frozen=True)
class Move:
    """One move of `alias` to `version`, from `before`; None is no version at all.

    `action` is promote, rollback or outside (someone moved it by other means); `state` intended or done; `time` is
    ISO 8601 in UTC. `accuracy` in per cent is the one by which it was promoted, where one is known: on images called
    `on` (test, validation, or another dataset's) with the digest `images` (empty in records of earlier versions).
    """

    number: int
    alias: str
    action: Action
    version: str | None
    before: str | None
    time: str
    by: str
    commit: str
    state: str = "done"
    reason: str = ""
    accuracy: float | None = None
    on: str = "test"
    images: str = ""

    @property
    def sentence(self) -> str:
        """2026-11-24 21:05 UTC: champion from version 1 to version 2, promoted by ann (test accuracy 97.50%)."""
        at = datetime.fromisoformat(self.time).strftime("%Y-%m-%d %H:%M UTC")
        target = "no version" if self.version is None else f"version {self.version}"
        origin = f" from version {self.before}" if self.before is not None else ""
        how = {"promote": "promoted", "rollback": "rolled back", "outside": "moved outside cifar-mlflow"}[self.action]
        by = "" if self.action == "outside" else f" by {self.by}"
        accuracy = "" if self.accuracy is None else f" ({self.on} accuracy {self.accuracy:.2f}%)"
        reason = f", {self.reason}" if self.reason else ""
        return f"{at}: {self.alias}{origin} to {target}, {how}{by}{accuracy}{reason}"


_MOVE = TypeAdapter(Move)  # making one takes longer than reading many moves with it


def holder(store: Store, name: str, alias: str) -> str | None:
    """The version that the alias names, or None."""
    version = versions.find(store, name).aliases.get(alias)
    return None if version is None else str(version)


def previous_alias(alias: str) -> str:
    """The alias of the version that held `alias` before."""
    return "previous" if alias == CHAMPION else f"previous-{alias}"


def moves(store: Store, name: str, alias: str | None = None) -> list[Move]:
    """The moves of the alias, or of all aliases, in order."""
    tagged = [
        (f"delete_model_version_tag({name!r}, {version.version!r}", version.tags)
        for version in versions.read_all(store, name)
    ]
    tagged.append((f"delete_registered_model_tag({name!r}", versions.find(store, name).tags))
    # One that is being archived is in both places.
    found = {
        key: _read(text, f"{delete}, {key!r})")
        for delete, tags in tagged
        for key, text in tags.items()
        if key.startswith(PREFIX)
    }
    return sorted((move for move in found.values() if alias in (None, move.alias)), key=lambda move: move.number)


def standing(record: Sequence[Move]) -> list[Move]:
    """The moves by which the alias came to where it is, each before the next, without those that were rolled back."""
    stack: list[Move] = []
    for move in record:
        if move.action == "rollback":
            while stack and stack[-1].version != move.version:
                stack.pop()
        if move.version != (stack[-1].version if stack else None):
            stack.append(move)
    return stack


def champions(store: Store, name: str, alias: str) -> list[Move]:
    """The moves to the versions that have held the alias and were not rolled back; the last is to the present one."""
    return standing(_settled(moves(store, name, alias), holder(store, name, alias)))


def _holders(record: Sequence[Move]) -> list[str | None]:
    """The versions that have held the alias, each before the next, without those that were rolled back."""
    return [None, *(move.version for move in standing(record))]


def _settled(record: Sequence[Move], actual: str | None) -> list[Move]:
    """The moves that came to pass; of those that are only intended, these are the ones to the `actual` version."""
    return [replace(move, state="done") for move in record if move.state == "done" or move.version == actual]


def faults(store: Store, name: str, alias: str) -> list[str]:
    """What `repair` would put right; nothing is written."""
    actual, previous = holder(store, name, alias), previous_alias(alias)
    record = moves(store, name, alias)
    told = [
        f"the {move.action} of version {move.version} as {alias} ({move.time}, by {move.by}) was begun and never ended"
        for move in record
        if move.state == "intended"
    ]
    record = _settled(record, actual)
    last = _holders(record)[-1]
    if actual != last:
        told.append(f"{alias} names version {actual}, by its record version {last}")
    elif (named := holder(store, name, previous)) != (wanted := rollback_target(store, name, record)):
        told.append(f"{previous} names version {named}, and a rollback would bring back version {wanted}")
    return told


def repair(store: Store, name: str, alias: str) -> list[Move]:
    """Puts right what a killed process or another hand has left; under the name's lease. Returns the moves.

    What the alias names is taken as it is. A move that did not come to pass is struck out.
    """
    found, actual = moves(store, name, alias), holder(store, name, alias)
    record = _settled(found, actual)
    for move in [move for move in found if move.state == "intended"]:
        done = replace(move, state="done")
        if done in record:
            _write(store, name, done)
        else:
            store.client.delete_registered_model_tag(name, _key(move))
    last = _holders(record)[-1]
    if actual != last:
        record.append(_new_move(store, name, alias, "outside", actual, last))
        _write(store, name, record[-1])
    _set_previous(store, name, alias, record)
    return record


def move(store: Store, name: str, alias: str, action: Action, version: str, *, reason: str = "", **judged: Any) -> None:
    """Moves the alias to the version and records it; under the name's lease, after `repair`.

    `judged` are the `accuracy` by which it was chosen, `on` and `images` of the Move.
    """
    before = holder(store, name, alias)
    done = replace(_new_move(store, name, alias, action, version, before), reason=reason[:2000], **judged)
    _write(store, name, replace(done, state="intended"))
    if action == "promote" and before is not None:
        store.client.set_registered_model_alias(name, previous_alias(alias), before)
    store.client.set_registered_model_alias(name, alias, version)
    _write(store, name, done)
    _set_previous(store, name, alias, moves(store, name, alias))
    _describe(store, name)
    _archive(store, name)


def rollback_target(store: Store, name: str, record: Sequence[Move]) -> str | None:
    """The version to roll back to: the latest holder before the present one that the registry still has."""
    there = {str(version.version) for version in versions.read_all(store, name)}
    *earlier, present = _holders(record)
    return next((version for version in reversed(earlier) if version in there and version != present), None)


def _read(text: str, delete: str) -> Move:
    """The move that a tag records; ModelError, with the request that would `delete` it, if it was changed since."""
    try:
        move = _MOVE.validate_json(text)
        datetime.fromisoformat(move.time)
    except ValueError:  # of which pydantic's is one
        raise ModelError(
            f"a move of an alias, as it is recorded in the registry, cannot be read: {shown(text)}. "
            f"To go on without it, delete its tag: mlflow.MlflowClient().{delete}"
        ) from None
    return move


def _new_move(store: Store, name: str, alias: str, action: Action, version: str | None, before: str | None) -> Move:
    number = max((each.number for each in moves(store, name)), default=0) + 1
    now = datetime.now(UTC).isoformat(timespec="seconds")
    by = "unknown" if action == "outside" else provenance.user()
    return Move(number, alias, action, version, before, now, by, provenance.describe_commit())


def _key(move: Move) -> str:
    return f"{PREFIX}{move.number:06d}"


def _write(store: Store, name: str, move: Move) -> None:
    store.client.set_registered_model_tag(name, _key(move), json.dumps(asdict(move), ensure_ascii=False))


def _archive(store: Store, name: str) -> None:
    """Takes all but the latest moves from the registered model to the versions that they moved to."""
    tags = versions.find(store, name).tags
    there = {str(version.version) for version in versions.read_all(store, name)}
    for key in sorted(key for key in tags if key.startswith(PREFIX))[:-KEPT][:ARCHIVED_AT_ONCE]:
        version = json.loads(tags[key])["version"]
        if version in there:
            store.client.set_model_version_tag(name, version, key, tags[key])
        store.client.delete_registered_model_tag(name, key)


def _set_previous(store: Store, name: str, alias: str, record: Sequence[Move]) -> None:
    """Lets the alias `previous` name what a rollback would bring back."""
    wanted, previous = rollback_target(store, name, record), previous_alias(alias)
    actual = holder(store, name, previous)
    if wanted not in (None, actual):
        store.client.set_registered_model_alias(name, previous, wanted)
    elif wanted != actual:
        store.client.delete_registered_model_alias(name, previous)


def _describe(store: Store, name: str) -> None:
    """The latest moves as the registered model's description, unless a user has written one."""
    written = versions.find(store, name).description or ""
    if written and not written.startswith(OUR_DESCRIPTION):
        return
    text = f"{OUR_DESCRIPTION} The latest moves of its aliases (`cifar-mlflow history` has all):\n"
    for move in reversed(moves(store, name)):
        line = f"\n- {move.sentence}"
        if len(text) + len(line) > versions.DESCRIPTION_LIMIT:
            break
        text += line if move.state == "done" else ""
    store.client.update_registered_model(name, text)
