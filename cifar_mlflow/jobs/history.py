"""The history of a registered model: its versions with their verdicts, and every move of its aliases."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cifar_mlflow import process_state
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.registry import aliases, versions
from cifar_mlflow.tracking.registry.aliases import Move


@dataclass(frozen=True)
class VersionSummary:
    """One version. `verdict` is promoted, refused or empty (never judged); `time` ISO 8601 in UTC, of registration."""

    version: str
    aliases: tuple[str, ...]
    test_accuracy: float | None
    verdict: str
    reason: str
    run_id: str
    time: str


@dataclass(frozen=True)
class ModelHistory:
    """All that the registry knows of a name, the oldest first."""

    name: str
    versions: tuple[VersionSummary, ...]
    moves: tuple[Move, ...]

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


@process_state.preserved()
def history(name: str) -> ModelHistory:
    """Reads the history of the registered model `name`; nothing is written.

    Raises:
        ModelError: there is no such registered model.
        TrackingError: the store cannot be read.
    """
    store = tracking_store.connect()
    named = versions.find(store, name).aliases
    summaries = []
    for version in versions.read_all(store, name):
        number, tags = str(version.version), version.tags
        forced = f"forced: {tags['forced']}" if "forced" in tags else ""
        summary = VersionSummary(
            version=number,
            aliases=tuple(sorted(alias for alias, holder in named.items() if str(holder) == number)),
            test_accuracy=float(tags["test_accuracy"]) if "test_accuracy" in tags else None,
            verdict=tags.get("verdict", ""),
            reason=tags.get("rejected", "") or forced,
            run_id=version.run_id or "",
            time=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        )
        summaries.append(summary)
    return ModelHistory(name, tuple(summaries), tuple(aliases.moves(store, name)))
