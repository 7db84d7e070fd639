"""Registered models: versions, aliases, and the record of every move of an alias.

Each move is a hidden tag of the registered model. It is written as intended, then the alias moves, then it is marked
done; so whoever comes next can tell what a process that was killed in between has left, and `repair` does. An alias
that somebody moved by other means becomes a move of its own, by `outside`.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.store import Store, redact, translated_errors
from cifar_mlflow.tracking.writing import provenance

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION = "champion"
PREFIX = "mlflow.cifar_mlflow.move."  # MLflow's UI does not show tags that begin with mlflow.
DESCRIPTION_LIMIT = 5000  # characters, on PostgreSQL
OUR_DESCRIPTION = "Aliases are moved by `cifar-mlflow promote`, which proves a model before."


@dataclass(frozen=True)
class Move:
    """One move of `alias` to `version`, from `before`; None is no version at all.

    `action` is promote, rollback or outside (someone moved it by other means); `state` intended or done; `time` is
    ISO 8601 in UTC. `accuracy` is the test accuracy in per cent, where one is known.
    """

    number: int
    alias: str
    action: str
    version: str | None
    before: str | None
    time: str
    by: str
    commit: str
    state: str = "done"
    reason: str = ""
    accuracy: float | None = None

    @property
    def sentence(self) -> str:
        """2026-11-24 21:05 UTC: champion moved from version 1 to version 2, promoted by ann (test accuracy 97.50%)."""
        at = datetime.fromisoformat(self.time).strftime("%Y-%m-%d %H:%M UTC")
        target = "no version" if self.version is None else f"version {self.version}"
        origin = f" from version {self.before}" if self.before is not None else ""
        how = {"promote": "promoted", "rollback": "rolled back", "outside": "moved outside cifar-mlflow"}[self.action]
        by = "" if self.action == "outside" else f" by {self.by}"
        accuracy = "" if self.accuracy is None else f" (test accuracy {self.accuracy:.2f}%)"
        reason = f", {self.reason}" if self.reason else ""
        return f"{at}: {self.alias}{origin} to {target}, {how}{by}{accuracy}{reason}"


def ensure(store: Store, name: str) -> None:
    """Makes the registered model `name`, if it is new.

    Raises:
        TrackingError: MLflow refuses the name.
    """
    from mlflow.exceptions import MlflowException

    with translated_errors(store.uri):
        try:
            store.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def find(store: Store, name: str) -> RegisteredModel:
    """The registered model `name`.

    Raises:
        ModelError: there is none.
    """
    from mlflow.exceptions import MlflowException

    with translated_errors(store.uri):
        try:
            return store.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            known = ", ".join(sorted(model.name for model in store.client.search_registered_models())) or "none"
            raise ModelError(
                f"there is no registered model {name!r} in {redact(store.uri)} (there are: {known})"
            ) from None


def exists(store: Store, name: str) -> bool:
    """Whether there is a registered model of that name."""
    with translated_errors(store.uri):
        return any(model.name == name for model in store.client.search_registered_models(_condition(name)))


def _condition(name: str) -> str | None:
    """MLflow's filter for a name; None, for all, if it holds what MLflow cannot read between quotation marks."""
    return f"name='{name}'" if re.fullmatch(r"[\w. -]+", name) else None


def versions(store: Store, name: str) -> list[ModelVersion]:
    """Every version of the registered model, the oldest first."""
    found: list[ModelVersion] = []
    token = None
    with translated_errors(store.uri):
        while True:
            page = store.client.search_model_versions(_condition(name), page_token=token)
            found += [version for version in page if version.name == name]
            token = page.token
            if not token:
                return sorted(found, key=lambda version: int(version.version))


def version_of(store: Store, name: str, model_uri: str) -> str | None:
    """The version that `model_uri` (models:/m-...) is registered as, or None."""
    return next((str(each.version) for each in versions(store, name) if each.source == model_uri), None)


def register(store: Store, name: str, model_uri: str, run_id: str) -> str:
    """Registers the logged model, or finds the version that it is already; to be called under the name's lease."""
    existing = version_of(store, name, model_uri)
    if existing:
        return existing
    model_id = model_uri.removeprefix("models:/")
    with translated_errors(store.uri):
        return str(
            store.client.create_model_version(
                name, model_uri, run_id, model_id=model_id, await_creation_for=None
            ).version
        )


def describe_version(
    store: Store, name: str, version: str, description: str, tags: dict[str, str], gone: tuple[str, ...] = ()
) -> None:
    """Writes a version's description and `tags`, and removes the tags `gone`."""
    with translated_errors(store.uri):
        store.client.update_model_version(name, version, redact(description)[:DESCRIPTION_LIMIT])
        for key, value in tags.items():
            store.client.set_model_version_tag(name, version, key, redact(value)[:5000])
        present = store.client.get_model_version(name, version).tags
        for key in set(gone) & set(present):
            store.client.delete_model_version_tag(name, version, key)


def tag_version(store: Store, name: str, version: str, tags: dict[str, str]) -> None:
    with translated_errors(store.uri):
        for key, value in tags.items():
            store.client.set_model_version_tag(name, version, key, value[:5000])


def holder(store: Store, name: str, alias: str) -> str | None:
    """The version that the alias names, or None."""
    version = find(store, name).aliases.get(alias)
    return None if version is None else str(version)


def previous_alias(alias: str) -> str:
    """The alias of the version that held `alias` before."""
    return "previous" if alias == CHAMPION else f"previous-{alias}"


def moves(store: Store, name: str, alias: str | None = None) -> list[Move]:
    """The moves of the alias, or of all aliases, in order."""
    tags = find(store, name).tags
    found = [Move(**json.loads(value)) for key, value in tags.items() if key.startswith(PREFIX)]
    return sorted((move for move in found if alias in (None, move.alias)), key=lambda move: move.number)


def held(record: list[Move]) -> list[str | None]:
    """The versions that have held the alias, each before the next, without those that were rolled back."""
    stack: list[str | None] = []
    for move in record:
        if move.state != "done":
            continue
        if move.action == "rollback":
            while stack and stack[-1] != move.version:
                stack.pop()
        if not stack or stack[-1] != move.version:
            stack.append(move.version)
    return stack


def faults(store: Store, name: str, alias: str) -> list[str]:
    """What `repair` would put right; nothing is written."""
    actual, previous = holder(store, name, alias), previous_alias(alias)
    record = moves(store, name, alias)
    told = [
        f"the {move.action} of version {move.version} as {alias} ({move.time}, by {move.by}) was begun and never ended"
        for move in record
        if move.state == "intended"
    ]
    record = [replace(move, state="done") if move.version == actual else move for move in record]
    stack = held(record)
    if actual != (stack[-1] if stack else None):
        told.append(f"{alias} names version {actual}, by its record version {stack[-1] if stack else None}")
    elif (named := holder(store, name, previous)) != (wanted := before(store, name, record)):
        told.append(f"{previous} names version {named}, and a rollback would bring back version {wanted}")
    return told


def repair(store: Store, name: str, alias: str) -> list[Move]:
    """Puts right what a killed process or another hand has left; under the name's lease. Returns the moves.

    What the alias names is taken as it is. A move that did not come to pass is struck out.
    """
    record = moves(store, name, alias)
    actual = holder(store, name, alias)
    for move in [move for move in record if move.state == "intended"]:
        if move.version == actual:
            _write(store, name, replace(move, state="done"))
        else:
            _strike(store, name, move)
    record = moves(store, name, alias)
    stack = held(record)
    if actual != (stack[-1] if stack else None):
        _write(store, name, _move(store, name, alias, "outside", actual, stack[-1] if stack else None))
        record = moves(store, name, alias)
    _set_previous(store, name, alias, record)
    return record


def move(
    store: Store,
    name: str,
    alias: str,
    action: str,
    version: str,
    *,
    reason: str = "",
    accuracy: float | None = None,
) -> None:
    """Moves the alias to the version and records it; under the name's lease, after `repair`."""
    before = holder(store, name, alias)
    intended = replace(
        _move(store, name, alias, action, version, before), state="intended", reason=reason[:2000], accuracy=accuracy
    )
    _write(store, name, intended)
    with translated_errors(store.uri):
        if action == "promote" and before is not None:
            store.client.set_registered_model_alias(name, previous_alias(alias), before)
        store.client.set_registered_model_alias(name, alias, version)
    _write(store, name, replace(intended, state="done"))
    record = moves(store, name, alias)
    _set_previous(store, name, alias, record)
    _describe(store, name)


def before(store: Store, name: str, record: list[Move]) -> str | None:
    """The version to roll back to: the latest holder before the present one that the registry still has."""
    there = {str(version.version) for version in versions(store, name)}
    stack = held(record)
    return next((version for version in reversed(stack[:-1]) if version in there and version != stack[-1]), None)


def _move(store: Store, name: str, alias: str, action: str, version: str | None, before: str | None) -> Move:
    number = max((each.number for each in moves(store, name)), default=0) + 1
    commit, dirty = provenance.commit_and_state()
    return Move(
        number=number,
        alias=alias,
        action=action,
        version=version,
        before=before,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        by="unknown" if action == "outside" else provenance.user(),
        commit=f"{commit}{' with changes' if dirty else ''}" if commit else "unknown",
    )


def _write(store: Store, name: str, move: Move) -> None:
    text = json.dumps(asdict(move), ensure_ascii=False)
    with translated_errors(store.uri):
        store.client.set_registered_model_tag(name, f"{PREFIX}{move.number:06d}", text)


def _strike(store: Store, name: str, move: Move) -> None:
    with translated_errors(store.uri):
        store.client.delete_registered_model_tag(name, f"{PREFIX}{move.number:06d}")


def _set_previous(store: Store, name: str, alias: str, record: list[Move]) -> None:
    """Lets the alias `previous` name what a rollback would bring back."""
    wanted, previous = before(store, name, record), previous_alias(alias)
    actual = holder(store, name, previous)
    with translated_errors(store.uri):
        if wanted is None and actual is not None:
            store.client.delete_registered_model_alias(name, previous)
        elif wanted is not None and wanted != actual:
            store.client.set_registered_model_alias(name, previous, wanted)


def _describe(store: Store, name: str) -> None:
    """The latest moves as the registered model's description, unless a user has written one."""
    written = find(store, name).description or ""
    if written and not written.startswith(OUR_DESCRIPTION):
        return
    latest = [move for move in reversed(moves(store, name)) if move.state == "done"]
    text = f"{OUR_DESCRIPTION} The latest moves of its aliases (`cifar-mlflow history` has all):\n"
    for line in (f"\n- {move.sentence}" for move in latest):
        if len(text) + len(line) > DESCRIPTION_LIMIT:
            break
        text += line
    with translated_errors(store.uri):
        store.client.update_registered_model(name, text)
