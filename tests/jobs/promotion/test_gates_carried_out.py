"""The gates on a model's record, files and answers: in which order, and what is not loaded at all."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from cifar_mlflow.analysis import gates as rules
from cifar_mlflow.jobs.promotion import gates
from cifar_mlflow.jobs.promotion.gates import Thresholds
from cifar_mlflow.tracking.reading.evaluations import Evaluation, ImageSet
from cifar_mlflow.tracking.registry.smoke import SmokeResult
from cifar_mlflow.tracking.writing import digests

DESCRIBED = {
    "flavors": {"python_function": {"loader_module": "mlflow.pytorch"}, "pytorch": {}},
    "signature": {"inputs": "[]"},
    "saved_input_example_info": {"artifact_path": "input_example.json"},
    "metadata": {"classes": ["cat", "dog"]},
}
ANSWER = [[0.25, 0.75]]


@pytest.fixture
def directory(tmp_path):
    """The files of a model; `MLmodel` is written by `describe`."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.pt2").write_bytes(b"x" * 1_500_000)
    (tmp_path / digests.EXAMPLE_ANSWER).write_text(json.dumps(ANSWER))
    describe(tmp_path)
    return tmp_path


def describe(directory, **changes):
    content = {name: value for name, value in (DESCRIBED | changes).items() if value is not None}
    (directory / "MLmodel").write_text(yaml.safe_dump(content))


def found(directory, status="FINISHED", **changes):
    about = {"run_status": status, "run_name": "digits-seed0", "dataset_digest": "0123456789", "weights": "last"}
    return SimpleNamespace(**about | {"tags": digests.tags(directory)} | changes)


@pytest.fixture
def ran(monkeypatch):
    """What the fresh process comes to, and how often it was started."""
    told = SimpleNamespace(result=SmokeResult(1.25, np.array(ANSWER, dtype=np.float32)), asked=[])

    def run(directory, uri):
        told.asked.append((directory, uri))
        return told.result

    monkeypatch.setattr(gates.smoke, "run", run)
    return told


def of_the_files(model, directory):
    result = gates.of_the_files(model, directory, SimpleNamespace(uri="sqlite:///x.db"))
    assert [gate.name for gate in result] == ["record", "integrity", "smoke"]
    return result


def test_a_model_as_it_was_logged_passes(directory, ran):
    record, integrity, smoke = of_the_files(found(directory), directory)
    assert (record.passed, record.observed) == (True, "digits-seed0, data 01234567, last weights")
    assert (integrity.passed, integrity.observed) == (True, "3 files, all unchanged")
    assert smoke.passed
    assert "1.2 s to load and answer, 1.5 MB" in smoke.observed
    assert ran.asked == [(directory, "sqlite:///x.db")]
    (directory / "registered_model_meta").touch()  # as MLflow does when it loads it
    assert of_the_files(found(directory), directory)[1].observed == "3 files, all unchanged"


@pytest.mark.parametrize(
    ("status", "changes", "observed"),
    [
        ("KILLED", {}, "the run is KILLED"),
        ("FINISHED", {"signature": None}, "the model has no signature"),
        ("FINISHED", {"saved_input_example_info": None}, "the model has no input example"),
        (
            "FAILED",
            {"signature": None, "saved_input_example_info": {}},
            "the run is FAILED, the model has no signature, the model has no input example",
        ),
    ],
)
def test_what_the_record_lacks_is_told(directory, ran, status, changes, observed):
    describe(directory, **changes)
    record, integrity, smoke = of_the_files(found(directory, status), directory)
    assert (record.passed, record.observed) == (False, observed)
    assert (integrity.passed, smoke.passed) == (True, True)


def test_changed_files_are_loaded_in_no_process(directory, ran):
    model = found(directory)
    (directory / "data" / "model.pt2").write_bytes(b"evil")
    (directory / "more").touch()
    _, integrity, smoke = of_the_files(model, directory)
    assert (integrity.passed, integrity.observed) == (False, "data/model.pt2 was changed, more was added")
    assert (smoke.passed, smoke.observed) == (False, "not loaded: the files are not those that were logged")
    assert ran.asked == []


def test_files_without_digests_are_loaded_in_no_process(directory, ran):
    _, integrity, smoke = of_the_files(found(directory, tags={}), directory)
    assert (integrity.passed, integrity.observed) == (False, "no digests were recorded when it was logged")
    assert (smoke.passed, ran.asked) == (False, [])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (DESCRIBED | {"flavors": {"python_function": {"loader_module": "evil"}, "pytorch": {}}}, "the loader 'evil'"),
        ([1], "its MLmodel file cannot be read"),
    ],
)
def test_files_that_ask_for_more_are_loaded_in_no_process(directory, ran, content, told):
    (directory / "MLmodel").write_text(yaml.safe_dump(content))
    _, integrity, smoke = of_the_files(found(directory), directory)
    assert (integrity.passed, smoke.passed, ran.asked) == (True, False, [])
    assert smoke.observed.startswith("not loaded: ")
    assert told in smoke.observed


@pytest.mark.parametrize("answer", [None, "no JSON", "[[1], [2, 3]]", '{"a": 1}'])
def test_without_an_answer_to_compare_with_it_does_not_pass(directory, ran, answer):
    path = directory / digests.EXAMPLE_ANSWER
    path.unlink() if answer is None else path.write_text(answer)
    smoke = of_the_files(found(directory), directory)[-1]
    assert (smoke.passed, ran.asked) == (False, [])
    assert smoke.observed.startswith("no recorded answer to compare with (")


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (SmokeResult(fault="no such layer"), "a fresh process could not use it: no such layer"),
        (SmokeResult(1.0, np.array([[0.75, 0.25]], dtype=np.float32)), "differs by 5.0e-01 at most"),
    ],
)
def test_a_process_that_fails_or_answers_otherwise_does_not_pass(directory, ran, result, told):
    ran.result = result
    smoke = of_the_files(found(directory), directory)[-1]
    assert (smoke.passed, smoke.required) == (False, rules.SMOKE)
    assert told in smoke.observed


# ----------------------------------------------------------------------------------------------------- the answers

LABELS = np.array([0, 0, 0, 1])


def evaluation(*predicted, digest="0123456789"):
    return Evaluation(digest, LABELS, np.array(predicted))


def of_the_images(directory, own, champion=None, before=0, split="test", **asked):
    return gates.of_the_images(directory, own, champion, Thresholds(**asked), ImageSet(split), before)


def test_the_answers_are_judged_by_what_is_asked(directory):
    judged, accuracy, recall = of_the_images(directory, evaluation(0, 0, 1, 1), min_accuracy=75, min_class_recall=80)
    assert (judged.passed, judged.required, judged.observed) == (
        True,
        "test images",
        "4 images with the digest 01234567",
    )
    assert (accuracy.passed, accuracy.observed) == (True, "75.00%")
    assert (recall.passed, recall.observed) == (False, "below: cat 66.7%")
    assert [gate.passed for gate in of_the_images(directory, evaluation(0, 0, 1, 1))] == [True, None, None]


def test_what_is_not_safe_to_load_is_not_judged(directory):
    (judged,) = of_the_images(directory, None)
    assert (judged.passed, judged.observed) == (False, "not evaluated: the model is not safe to load")


def test_the_champion_was_judged_on_the_same_images(directory):
    same, *_ = of_the_images(directory, evaluation(0, 0, 0, 1), evaluation(0, 0, 1, 1), split="validation")
    assert (same.passed, same.required) == (True, "the validation images that the champion was judged on")
    assert same.observed == "4 images with the digest 01234567"
    for digest in ("9876543210", "0000000000"):
        other, *_ = of_the_images(directory, evaluation(0, 0, 0, 1), evaluation(0, 0, 1, 1, digest=digest))
        assert other.passed is False
        told = f"but the champion on that with the digest {digest[:8]}"
        assert other.observed == f"4 images with the digest 01234567, {told}"


@pytest.mark.parametrize(("before", "told"), [(0, ""), (1, "; 1 other model of"), (2, "; 2 other models of")])
def test_how_many_were_judged_on_the_images_before_is_told(directory, before, told):
    observed = of_the_images(directory, evaluation(0, 0, 0, 1), before=before)[0].observed
    assert observed == "4 images with the digest 01234567" + (f"{told} this name judged on them before" if told else "")


@pytest.mark.parametrize("predicted", [(0, 0, 0, 2), (0, 0, 0, 1)])
def test_classes_without_names_are_numbered(directory, predicted):
    describe(directory, metadata=None)
    recall = of_the_images(directory, evaluation(*predicted), min_class_recall=50)[-1]
    assert recall.observed == {2: "below: 1 0.0%; no image of: 2", 1: "the lowest is 0: 100.0%"}[predicted[-1]]
