"""A verdict as a sentence, as JSON and as a description: each says what happened, to what, and why."""

import json
from types import SimpleNamespace

import pytest

from cifar_mlflow.analysis.gates import Gate, Rivals
from cifar_mlflow.jobs.promotion.verdict import ALREADY, DRY_RUN, PROMOTED, REFUSED, PromotionVerdict

PASSED = Gate("integrity", "every file", "3 files", True)
NOT_ASKED = Gate("accuracy", "no threshold", "97.00%", None)
FAILED = [Gate("smoke", "loads", "does not load", False), Gate("champion", "not worse", "worse", False)]


def verdict(status, *failed, **changes):
    fields = {
        "name": "net",
        "alias": "champion",
        "version": "3",
        "champion": "2",
        "rival": "1",
        "model_uri": "models:/m-7",
        "run_id": "ab" * 16,
        "run_name": "digits-seed0",
        "status": status,
        "gates": (PASSED, NOT_ASKED, *failed),
        "rivals": Rivals(100, 90, 4, 2, 0.5),
        "on": "fresh test",
        "images": "0123",
        "accuracy": 97.0,
        "forced": None,
        "time": "2026-11-24T21:05:59+00:00",
        "by": "ann",
        "commit": "0123456789abcdef",
    }
    return PromotionVerdict(**fields | changes)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (verdict(PROMOTED), "net version 3 became champion in place of version 2"),
        (verdict(PROMOTED, champion=None), "net version 3 became champion, the first"),
        (verdict(PROMOTED, FAILED[1], forced="too slow"),
         "net version 3 became champion in place of version 2, forced against its gate champion failed (too slow)"),
        (verdict(PROMOTED, forced="hurry"), "net version 3 became champion in place of version 2"),
        (verdict(REFUSED, FAILED[1]), "net version 3 was refused: gate champion failed"),
        (verdict(REFUSED, *FAILED), "net version 3 was refused: gates smoke, champion failed"),
        (verdict(ALREADY), "net version 3 is champion already"),
        (verdict(ALREADY, FAILED[0]), "net version 3 is champion already, but its gate smoke failed"),
        (verdict(DRY_RUN), "dry run, the registry is as it was: net version 3 would be promoted"),
        (verdict(DRY_RUN, version=None), "dry run, the registry is as it was: models:/m-7 as net would be promoted"),
        (verdict(DRY_RUN, FAILED[1]),
         "dry run, the registry is as it was: net version 3 would be refused: gate champion failed"),
        (verdict(DRY_RUN, FAILED[1], forced="too slow"),
         "dry run, the registry is as it was: net version 3 would be promoted"),
    ],
)  # fmt: skip
def test_what_came_of_it_in_one_sentence(told, sentence):
    assert told.sentence == sentence


def test_only_gates_that_were_asked_and_did_not_let_it_through_have_failed():
    assert verdict(PROMOTED).failed == []
    assert verdict(REFUSED, *FAILED).failed == ["smoke", "champion"]


def test_json_has_everything():
    told = verdict(REFUSED, FAILED[1])
    document = json.loads(told.as_json())
    assert document["gates"][0] == {
        "name": "integrity",
        "required": "every file",
        "observed": "3 files",
        "passed": True,
    }
    assert document["rivals"] == {"images": 100, "both": 90, "only_new": 4, "only_champion": 2, "p": 0.5}
    assert document["fresh_test_accuracy"] == document["accuracy"] == 97.0
    assert (document["failed"], document["sentence"]) == (["champion"], told.sentence)
    assert (document["version"], document["champion"], document["rival"]) == ("3", "2", "1")


def test_a_description_names_the_run_the_hour_and_the_gates():
    found = SimpleNamespace(experiment_id="5", weights="best", config=SimpleNamespace(dataset="digits"))
    text = verdict(PROMOTED).description(found, "promotion/x.json")
    assert text.startswith(
        "net version 3 became champion in place of version 2 (2026-11-24 21:05 UTC, by ann, commit 0123456789ab).\n\n"
        f"From the run [digits-seed0](#/experiments/5/runs/{'ab' * 16}), best weights, trained on digits; the verdict "
        "is its artifact `promotion/x.json`.\n\n| gate"
    )
    assert "| accuracy | not asked | 97.00% | no threshold |" in text
