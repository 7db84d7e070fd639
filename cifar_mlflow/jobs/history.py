"""The story of a registered model: its versions with their verdicts, and every move of its aliases."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cifar_mlflow import process_state
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.registry import aliases as registry
from cifar_mlflow.tracking.registry.aliases import Move


@dataclass(frozen=True)
class VersionStory:
    """One version. `verdict` is promoted, refused or empty (never judged); `time` ISO 8601 in UTC, of registration."""

    version: str
    aliases: tuple[str, ...]
    test_accuracy: float | None
    verdict: str
    reason: str
    run_id: str
    time: str


@dataclass(frozen=True)
class History:
    """All that the registry knows of a name, the oldest first."""

    name: str
    versions: tuple[VersionStory, ...]
    moves: tuple[Move, ...]

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


@process_state.preserved()
def history(name: str) -> History:
    """Reads the story of the registered model `name`; nothing is written.

    Raises:
        ModelError: there is no such registered model.
        TrackingError: the store cannot be read.
    """
    store = tracking_store.connect()
    model = registry.find(store, name)
    aliases: dict[str, list[str]] = {}
    for alias, version in model.aliases.items():
        aliases.setdefault(str(version), []).append(alias)
    stories = []
    for version in registry.versions(store, name):
        tags = version.tags
        accuracy = tags.get("test_accuracy")
        forced = f"forced: {tags['forced']}" if "forced" in tags else ""
        stories.append(
            VersionStory(
                version=str(version.version),
                aliases=tuple(sorted(aliases.get(str(version.version), []))),
                test_accuracy=float(accuracy) if accuracy else None,
                verdict=tags.get("verdict", ""),
                reason=tags.get("rejected", "") or forced,
                run_id=version.run_id or "",
                time=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            )
        )
    return History(name, tuple(stories), tuple(registry.moves(store, name)))
