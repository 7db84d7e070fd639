"""With which champion a model is compared: the best of those that stand, on the same images."""

from types import SimpleNamespace

import numpy as np
import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.jobs.promotion import rivals
from cifar_mlflow.jobs.promotion.rivals import Rival
from cifar_mlflow.tracking.reading.evaluations import Evaluation, ImageSet
from cifar_mlflow.tracking.registry.aliases import Move

IMAGES, OTHERS = "digest of the images", "digest of others"


def answers(right, digest=IMAGES):
    """Of 100 images."""
    return Evaluation(digest, np.zeros(100, dtype=int), (np.arange(100) >= right).astype(int))


@pytest.fixture
def registry(monkeypatch):
    """Champions, by version, in the order of their moves: what each was promoted by, and its answers or an error."""
    held = {}

    def move(number, version, accuracy, images):
        return Move(number, "champion", "promote", version, None, "", "", "", accuracy=accuracy, images=images)

    def champions(store, name, alias):
        return [move(number, version, *told[:2]) for number, (version, told) in enumerate(held.items(), 1)]

    def read(store, uri, images):
        asked.append(uri)
        told = held[uri.rpartition("/")[2]][2]
        if isinstance(told, Exception):
            raise told
        return told

    asked = []
    monkeypatch.setattr(rivals.aliases, "champions", champions)
    monkeypatch.setattr(rivals.models, "find_model", lambda store, uri: uri)
    monkeypatch.setattr(rivals.evaluations, "read", read)
    return SimpleNamespace(held=held, asked=asked)


def best(candidate="10", dataset=None):
    present, images = Rival("9", answers(90)), ImageSet("test", dataset)
    found, unknown = rivals.best_champion(None, "net", "champion", present, candidate, images)
    return found.version, round(found.answers.accuracy), unknown


def test_the_most_accurate_one_is_the_rival(registry):
    registry.held |= {
        "1": (92.0, IMAGES, answers(92)),
        "2": (97.0, IMAGES, answers(97)),
        "3": (95.0, IMAGES, answers(95)),
        "9": (90.0, IMAGES, answers(90)),
    }
    assert best() == ("2", 97, [])
    # The most promising is looked at first, and makes it needless to read the others.
    assert registry.asked == ["models:/net/2"]


def test_the_present_one_wins_a_tie_and_where_no_other_is_better(registry):
    registry.held |= {"1": (90.0, IMAGES, answers(90)), "2": (None, IMAGES, answers(90))}
    assert best() == ("9", 90, [])
    assert registry.asked == ["models:/net/2"]


def test_neither_the_candidate_nor_no_version_is_a_rival(registry):
    registry.held |= {
        "10": (99.0, IMAGES, answers(99)),
        None: (99.0, IMAGES, answers(99)),
        "1": (91.0, IMAGES, answers(91)),
    }
    assert best() == ("1", 91, [])
    assert best(candidate=None) == ("10", 99, [])


@pytest.mark.parametrize("images", [OTHERS, "", "zzz"])
def test_an_accuracy_on_other_images_promises_nothing(registry, images):
    """It was promoted by a low one on others, and is the best on these."""
    registry.held |= {"1": (50.0, images, answers(96))}
    assert best() == ("1", 96, [])


def test_what_it_answered_counts_not_what_it_was_promoted_by(registry):
    registry.held |= {"1": (99.0, IMAGES, answers(80)), "2": (None, "", answers(94))}
    assert best() == ("2", 94, [])


def test_those_that_cannot_be_compared_are_named_with_the_reason(registry):
    registry.held |= {
        "1": (None, "", ModelError("version 1 is gone")),
        "2": (99.0, IMAGES, None),
        "3": (98.0, IMAGES, answers(98, OTHERS)),
        "4": (91.0, IMAGES, answers(91)),
    }
    found = best(dataset="fresh")
    assert found == (
        "4",
        91,
        [
            "version 1 (version 1 is gone)",
            "version 2 (not judged on these fresh test images)",
            "version 3 (not judged on these fresh test images)",
        ],
    )


@pytest.fixture
def versions_of(monkeypatch):
    def have(**tags):
        found = [SimpleNamespace(version=version[1:], tags=told) for version, told in tags.items()]
        monkeypatch.setattr(rivals.versions, "exists", lambda store, name: bool(tags))
        monkeypatch.setattr(rivals.versions, "read_all", lambda store, name: found)

    return have


def test_how_many_other_models_were_judged_on_the_images(versions_of):
    versions_of(
        v1={"judged_on": f"test {IMAGES}"},
        v2={"judged_on": f"fresh test {IMAGES}"},
        v3={"judged_on": f"test {OTHERS}"},
        v4={},
        v5={"judged_on": f"test {IMAGES}"},
    )
    assert rivals.judged_before(None, "net", "5", IMAGES) == 2
    assert rivals.judged_before(None, "net", None, IMAGES) == 3
    versions_of()
    assert rivals.judged_before(None, "net", "5", IMAGES) == 0
