"""The history of a registered model: its versions with their verdicts, the moves of its aliases, and their drift."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cifar_mlflow import process_state
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.registry import aliases, versions
from cifar_mlflow.tracking.registry.aliases import Move


@dataclass(frozen=True)
class VersionSummary:
    """One version. `verdict` is promoted, refused or empty (never judged); `time` ISO 8601 in UTC, of registration.

    `accuracy` in per cent is that on the images called `on` (test, validation, or another dataset's test), by which it
    was judged.
    """

    version: str
    aliases: tuple[str, ...]
    accuracy: float | None
    on: str
    verdict: str
    reason: str
    run_id: str
    time: str


@dataclass(frozen=True)
class Champion:
    """A version that held `alias` and was not rolled back, with its accuracy (per cent) when it was promoted.

    `best` is the most accurate version before it on the same images, and `below` by how many points it is below that
    one; None for the first on its images.
    """

    alias: str
    version: str
    on: str
    accuracy: float
    best: str | None
    below: float | None


@dataclass(frozen=True)
class ModelHistory:
    """All that the registry knows of a name, the oldest first."""

    name: str
    versions: tuple[VersionSummary, ...]
    moves: tuple[Move, ...]
    drift: tuple[Champion, ...]

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
        on = tags.get("judged_on", "test").rpartition(" ")[0] or "test"
        accuracy = f"{on} accuracy".replace(" ", "_")
        forced = f"forced: {tags['forced']}" if "forced" in tags else ""
        summary = VersionSummary(
            version=number,
            aliases=tuple(sorted(alias for alias, holder in named.items() if str(holder) == number)),
            accuracy=_number(tags.get(accuracy)),
            on=on,
            verdict=tags.get("verdict", ""),
            reason=tags.get("rejected", "") or forced,
            run_id=version.run_id or "",
            time=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        )
        summaries.append(summary)
    moves = aliases.moves(store, name)
    return ModelHistory(name, tuple(summaries), tuple(moves), tuple(drift(moves)))


def _number(text: str | None) -> float | None:
    """What a tag says; None where there is none, or another hand has written something else."""
    with suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]
    return None


def drift(moves: Sequence[Move]) -> Iterator[Champion]:
    """How far each champion was below the best before it, as they were judged, by alias."""
    for alias in sorted({move.alias for move in moves}):
        best: dict[str, Move] = {}  # by the digest of the images
        for move in aliases.standing([each for each in moves if each.alias == alias and each.state == "done"]):
            if move.version is None or move.accuracy is None:
                continue
            before = best.get(move.images)
            below = before.accuracy - move.accuracy if before and before.accuracy is not None else None
            yield Champion(alias, move.version, move.on, move.accuracy, before.version if before else None, below)
            if below is None or below < 0:
                best[move.images] = move
