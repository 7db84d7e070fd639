"""Labels that were made wrong are found by runs that were trained without the images; folds leave each out as often."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
import yaml
from PIL import Image
from support import TINY_CLASSES, InlineExecutor, tiny_arrays

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.jobs.sweeping import places
from cifar_mlflow.learning.data import datasets, splitting

BASE = {"epochs": 8, "batch_size": 8, "scheduler": "none", "precision": "float32"}


@pytest.fixture
def flipped(work):
    """The tiny dataset with six wrong labels: the file, and the positions of those images."""
    arrays, rng = tiny_arrays(train=160), np.random.default_rng(1)
    at = rng.choice(160, 6, replace=False)
    arrays["y_train"][at] = (arrays["y_train"][at] + rng.integers(1, TINY_CLASSES, 6)) % TINY_CLASSES
    np.savez(work / "flipped.npz", **arrays)
    return work / "flipped.npz", set(at.tolist())


@pytest.fixture
def sweep(work, cifar, monkeypatch):
    """Runs a sweep with folds in this process."""
    monkeypatch.setattr(places, "ProcessExecutor", InlineExecutor)

    def run(dataset, **changes):
        base = {**BASE, "dataset": str(dataset), **changes.pop("base", {})}
        spec = {"name": "folded", "base": base, "space": {"activation": ["relu"]}, "folds": 2, "repeats": 4}
        (work / "folded.yaml").write_text(yaml.safe_dump({**spec, "workers": 1, "log_models": False, **changes}))
        return cifar("sweep", "folded.yaml")

    return run


def test_wrong_labels_are_the_first_of_the_list(cifar, client, runs, flipped, sweep, work):
    path, wrong = flipped
    assert (outcome := sweep(path)).code == 0, outcome.output
    told = cifar("mislabelled", "folded", "--count", 6, "--format", "json", "--contact-sheet", "sheet.png")
    assert told.code == 0, told.output
    found = json.loads(told.stdout)
    assert len(wrong & {each["index"] for each in found["suspects"]}) >= 5
    assert found["images"] == 160
    assert 4 <= found["likely"] <= 10
    (parent,) = [run for run in runs() if run.data.tags["kind"] == "sweep"]
    with open(client().download_artifacts(parent.info.run_id, "mislabelled.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows[:6]] == [each["index"] for each in found["suspects"]]
    # Each of the training images was left out by two of the four seeds; no run has seen the validation images.
    assert Counter(int(row["runs"]) for row in rows) == {2: 144, 4: 16}
    arrays = np.load(path)
    assert all(row["label"] == str(arrays["y_train"][int(row["index"])]) for row in rows)
    with Image.open("sheet.png") as sheet:
        assert sheet.size[0] > 600
    table = cifar("mislabelled", "folded", "--count", 3).stdout.splitlines()
    assert table[0].split()[:4] == ["rank", "image", "label", "taken"]
    assert table[-1].endswith("of 160 training images are likely to be mislabelled")


@pytest.mark.long
def test_of_digits_with_two_per_cent_of_wrong_labels_most_are_in_the_first_two_per_cent(cifar, sweep, work):
    digits = datasets.load(resolve({"dataset": "digits", "validation_size": 0}))
    labels, rng = digits.train.labels.numpy().copy(), np.random.default_rng(0)
    wrong = rng.choice(len(labels), round(0.02 * len(labels)), replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    parts = {"x_train": digits.train.pixels, "x_test": digits.test.pixels, "y_test": digits.test.labels}
    np.savez(work / "flipped.npz", y_train=labels, **{name: part.numpy() for name, part in parts.items()})
    base = {"epochs": 6, "batch_size": 32, "scheduler": "cosine"}
    assert (outcome := sweep(work / "flipped.npz", base=base, folds=4, repeats=8)).code == 0, outcome.output
    told = json.loads(cifar("mislabelled", "folded", "--count", len(wrong), "--format", "json").stdout)
    found = set(wrong.tolist()) & {each["index"] for each in told["suspects"]}
    assert len(found) >= 0.8 * len(wrong)


def test_a_run_is_trained_without_its_fold_and_reproduced(cifar, client, tiny_training):
    outcome = cifar("train", *tiny_training, "--folds", 3, "--seed", 4)
    assert outcome.code == 0, outcome.output
    run = client().get_run(outcome.stdout.split()[1])
    assert run.data.tags["fold"] == "2/3"
    assert json.loads(run.inputs.dataset_inputs[0].dataset.profile)["train"] == 72
    told = np.load(client().download_artifacts(run.info.run_id, "fold_predictions.npz"))
    assert (len(told["index"]), told["probabilities"].shape) == (36, (36, 3))
    again = cifar("reproduce", run.info.run_id)
    assert "identical" in again.stdout, again.output


def test_each_image_is_in_one_fold_and_never_trained_on_there(tiny):
    config = {"dataset": str(tiny), "folds": 4}
    whole = datasets.load(resolve({"dataset": str(tiny)}))
    seen = []
    for seed in range(4, 8):
        part = datasets.load(resolve({**config, "seed": seed}))
        assert (part.digest, part.test_digest) == (whole.digest, whole.test_digest)
        assert len(part.train) + len(part.left_out) == len(whole.train)
        assert datasets.overlap(part.left_out, part.train) == 0
        pixels = np.load(tiny)["x_train"][part.left_out_indices]
        assert (part.left_out.pixels.numpy() == pixels).all()
        seen += part.left_out_indices.tolist()
    assert sorted([*seen, *whole.validation_indices.tolist()]) == list(range(120))


def test_folds_are_equal_in_size_and_classes():
    labels = np.repeat([0, 1, 2], [50, 31, 7])
    folds = splitting.fold_numbers(labels, 4, seed=3)
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 1
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=4)
        assert max(counts) - min(counts) <= 1
    assert (folds == splitting.fold_numbers(labels, 4, seed=3)).all()
    assert (folds != splitting.fold_numbers(labels, 4, seed=4)).any()


def test_files_of_a_folder_are_named(cifar, sweep, work):
    from support import write_classes

    write_classes(work / "photos", 20)
    assert (outcome := sweep(f"{work}/photos/", base={"epochs": 1}, repeats=2)).code == 0, outcome.output
    rows = list(csv.DictReader(cifar("mislabelled", "folded", "--format", "csv").stdout.splitlines()))
    assert all((work / "photos" / row["image"]).parent.name == row["label"] for row in rows)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"repeats": 3}, "folds: each seed trains without one of 2 parts, so that repeats must be a multiple of 2"),
        ({"base": {"folds": 2}}, "base: folds: give the sweep's own folds, beside repeats"),
        ({"folds": 1}, "folds: 1 is refused: must be none or a whole number from 2 to 1,000"),
        ({"space": {"folds": [2, 3]}}, "space: folds: it cannot vary: it is set for the whole sweep, beside repeats"),
    ],
)  # fmt: skip
def test_folds_that_make_no_sense_are_told(sweep, tiny, changes, told):
    outcome = sweep(tiny, **changes)
    assert outcome.code == 2
    assert told in outcome.stderr


def test_more_folds_than_images_are_refused(cifar, tiny_training, runs):
    outcome = cifar("train", *tiny_training, "--folds", 109)
    assert outcome.code == 2
    assert "--folds: 109 is refused: there are 108 images to train on" in outcome.stderr
    assert runs() == []


def test_a_sweep_without_folds_or_with_a_missing_one_is_told(cifar, client, runs, sweep, tiny):
    assert sweep(tiny, base={"epochs": 1}, repeats=2).code == 0
    lost = next(run for run in runs() if run.data.tags.get("fold") == "2/2")
    client().delete_run(lost.info.run_id)
    outcome = cifar("mislabelled", "folded")
    assert outcome.code == 6
    assert "the sweep folded has no finished run of the fold 2/2; start it again" in outcome.stderr
    assert sweep(tiny, name="plain", folds="none", base={"epochs": 1}, repeats=1).code == 0
    outcome = cifar("mislabelled", "plain")
    assert outcome.code == 6
    assert "the sweep plain has no folds: " in outcome.stderr
