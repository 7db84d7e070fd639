"""With whom a model is compared, and on which images: losses that are too small to be seen do not add up."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("smoke_here")


@pytest.fixture
def answers(candidates, client):
    """Writes what a model is recorded to have answered to the 30 test images: so many wrong, from the first on."""

    def write(run_id, wrong, first=0, name="test_predictions.npz"):
        path = Path(client().get_run(run_id).info.artifact_uri) / name
        arrays = dict(np.load(path))
        predicted = arrays["label"].copy()
        predicted[first : first + wrong] = (predicted[first : first + wrong] + 1) % 3
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays | {"predicted": predicted})
        path.write_bytes(buffer.getvalue())

    return write


@pytest.fixture
def falling(answers, candidates):
    """Models of which each is wrong on five more images than the one before: no step is significant, two are."""
    for number, run_id in enumerate(candidates.good):
        answers(run_id, 5 * number)
    return candidates.good


def observed(verdict):
    return verdict["gates"][-1]["observed"]


def test_the_rival_is_the_best_champion_so_far(promote, falling, champion, cifar):
    assert promote(falling[0])[1]["rival"] is None
    code, second = promote(falling[1], "--significance", 0.02)
    assert (code, second["rival"]) == (0, "1")
    code, third = promote(falling[2], "--significance", 0.02)
    assert (code, third["failed"], third["champion"], third["rival"], champion()) == (7, ["champion"], "2", "1", "2")
    assert third["rivals"]["only_champion"] == 10
    assert "100.00% of version 1" in observed(third)
    drift = json.loads(cifar("history", "tiny", "--format", "json").stdout)["drift"]
    assert [(each["version"], each["best"], each["below"]) for each in drift] == [
        ("1", None, None),
        ("2", "1", pytest.approx(100 / 6)),
    ]
    assert "16.67 (version 1)" in cifar("history", "tiny").stdout


def test_a_champion_that_was_rolled_back_is_no_rival(promote, falling, cifar):
    promote(falling[1])
    promote(falling[0])
    assert cifar("rollback", "tiny").code == 0
    code, verdict = promote(falling[2], "--significance", 0.02)
    assert (code, verdict["rival"]) == (0, "1")


@pytest.mark.parametrize("gone", ["version", "run", "answers", "other images"])
def test_a_champion_that_cannot_be_compared_is_named(promote, falling, client, gone):
    promote(falling[0])
    promote(falling[1], "--significance", 0.02)
    if gone == "version":
        client().delete_model_version("tiny", "1")
    elif gone == "run":
        client().delete_run(falling[0])
    elif gone == "answers":
        (Path(client().get_run(falling[0]).info.artifact_uri) / "test_predictions.npz").unlink()
    else:
        client().set_tag(falling[0], "test_digest", "0" * 32)
    code, verdict = promote(falling[2], "--significance", 0.02)
    assert (code, verdict["rival"]) == (0, "2")
    said = {"version": "has no version 1", "run": f"mlflow runs restore --run-id {falling[0]}"}
    assert "champions that cannot be compared: version 1 (" in observed(verdict)
    assert said.get(gone, "not judged on these test images") in observed(verdict)


def test_a_margin_is_refused_where_it_cannot_be_told(promote, falling):
    promote(falling[0])
    code, verdict = promote(falling[1], "--margin", 5)
    assert (code, verdict["failed"]) == (7, ["champion"])
    assert "cannot be told; for two equal models" in observed(verdict)
    assert promote(falling[1], "--margin", 50)[0] == 0


def test_on_validation_nothing_looks_at_the_test_set(promote, candidates, client, cifar):
    def forget(run_id):
        (Path(client().get_run(run_id).info.artifact_uri) / "test_predictions.npz").unlink()

    for run_id in candidates.good[:2]:
        forget(run_id)
        code, verdict = promote(run_id, "--on", "validation")
        run = client().get_run(run_id)
        assert (code, verdict["on"], verdict["images"]) == (0, "validation", run.data.tags["dataset_digest"])
        assert verdict["validation_accuracy"] == run.data.metrics["final_val_accuracy"]
        assert run.data.tags["test_evaluations"] == "1"
    assert verdict["rivals"]["images"] == 12
    assert "1 other model of this name judged on them before" in verdict["gates"][3]["observed"]
    assert "(validation accuracy " in cifar("history", "tiny").stdout


def test_what_cannot_be_judged_on_validation(cifar, candidates, tiny_training, tiny):
    refused = cifar("promote", candidates.good[0], "--on", "validation", "--weights", "best")
    assert (refused.code, "weights were chosen on the validation images" in refused.stderr) == (6, True)
    assert cifar("promote", candidates.good[0], "--on", "validation", "--dataset", tiny).code == 2
    run_id = cifar("train", *tiny_training, "--validation-size", 0, "--epochs", 1).stdout.split()[1]
    refused = cifar("promote", run_id, "--on", "validation")
    assert (refused.code, "no answers to validation images" in refused.stderr) == (6, True)


def test_a_fresh_test_set(promote, candidates, client, write_npz):
    fresh = write_npz("fresh.npz", seed=1)
    for run_id in candidates.good[:2]:
        code, verdict = promote(run_id, "--dataset", fresh)
        assert (code, verdict["on"]) == (0, "fresh test")
        assert "test_fresh_accuracy" in client().get_run(run_id).data.metrics
    assert verdict["rivals"]["images"] == 30
    assert client().get_run(candidates.good[0]).data.tags["test_evaluations"] == "2"
    # Another content under the same name is another test set.
    write_npz("fresh.npz", seed=2)
    assert promote(candidates.good[2], "--dataset", fresh)[1]["images"] != verdict["images"]
    assert client().get_run(candidates.good[1]).data.tags["test_evaluations"] == "3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--margin", 0], "--margin: 0 is refused"),
        (["--margin", 0.5, "--require", "better"], "cannot be combined with --require better"),
    ],
)
def test_margins_that_make_no_sense(cifar, words, said):
    outcome = cifar("promote", "0" * 32, *words)
    assert (outcome.code, said in outcome.stderr) == (2, True)
