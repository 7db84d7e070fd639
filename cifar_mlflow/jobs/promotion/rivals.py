"""With which champion a model is compared: the best so far on the same images.

If each model were compared with the one before alone, losses too small to be seen would add up without end.
"""

import math
from typing import NamedTuple

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking.reading import evaluations, models
from cifar_mlflow.tracking.reading.evaluations import Evaluation, ImageSet
from cifar_mlflow.tracking.registry import aliases, versions
from cifar_mlflow.tracking.registry.aliases import Move
from cifar_mlflow.tracking.store import Store


class Rival(NamedTuple):
    """A version, and its answers to the images that the models are judged on."""

    version: str
    answers: Evaluation


def best_champion(
    store: Store, name: str, alias: str, present: Rival, candidate: str | None, images: ImageSet
) -> tuple[Rival, list[str]]:
    """The most accurate champion so far, by the answers that are recorded; those that were rolled back do not count.

    `present` is the one of this moment, and wins a tie; `candidate` is the version that is judged. Also returns which
    champions cannot be compared, each with the reason.
    """
    best, unknown = present, []
    earlier = {move.version: move for move in aliases.champions(store, name, alias)}
    for move in sorted(earlier.values(), key=_promise, reverse=True):
        recorded = move.accuracy if move.images == present.answers.digest else None
        if move.version in (None, present.version, candidate) or (recorded or math.inf) <= best.answers.accuracy:
            continue
        answers, reason = None, f"not judged on these {images.name} images"
        try:
            answers = evaluations.read(store, models.find_model(store, f"models:/{name}/{move.version}"), images)
        except ModelError as error:
            reason = str(error)
        if answers is None or answers.digest != present.answers.digest:
            unknown.append(f"version {move.version} ({reason})")
        elif answers.accuracy > best.answers.accuracy:
            best = Rival(str(move.version), answers)
    return best, unknown


def _promise(move: Move) -> float:
    """The most promising first, so that the answers of the others need not be read."""
    return math.inf if move.accuracy is None else move.accuracy


def judged_before(store: Store, name: str, candidate: str | None, digest: str) -> int:
    """How many other models of the registered model `name`, which may not exist, were judged on the images `digest`."""
    if not versions.exists(store, name):
        return 0
    others = [each for each in versions.read_all(store, name) if str(each.version) != candidate]
    return sum(each.tags.get("judged_on", "").endswith(digest) for each in others)
