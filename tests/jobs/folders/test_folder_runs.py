"""Folders of images through the commands: trained, evaluated, predicted, reproduced, resumed, swept, moved."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support import encoded, run_here, write_classes, write_parts, write_photo

FEW = ("--epochs", 2, "--batch-size", 8, "--scheduler", "none", "--precision", "float32", "--threads", 1)
# Two classes that are learned at once: bright and dark.
CLASSES = ("bright", "dark")


def write_shades(root, part="", count=16, classes=CLASSES, first=0, size=80):
    """JPEG files of `size` pixels, which are scaled down to 12."""
    for label, name in enumerate(classes):
        for number in range(count):
            rng = np.random.default_rng(first + 1000 * label + number)
            levels = rng.integers(0, 100, (5, 5, 3), dtype=np.uint8) + np.uint8(150 * (label == 0))
            picture = Image.fromarray(levels).resize((size, size), Image.Resampling.BICUBIC)
            file = root / part / name / f"{first + number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(picture, "JPEG"))
    return root


@pytest.fixture
def photos(work):
    return write_shades(work / "photos", count=30)


def train(cifar, root, *words):
    outcome = cifar("train", "--dataset", f"{root}/", "--image-size", 12, *FEW, *words)
    assert outcome.code == 0, outcome.output
    return outcome.stdout.split()[1], outcome


def test_a_run_is_evaluated_predicted_and_reproduced(photos, cifar, client):
    run_id, outcome = train(cifar, photos)
    assert "done: photos, validation accuracy" in outcome.stdout
    run = client().get_run(run_id)
    assert run.data.params["dataset"] == str(photos)
    assert run.data.params["image_size"] == "12"
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == run.data.tags["dataset_digest"]
    assert json.loads(dataset.dataset.source)["uri"] == str(photos)

    evaluated = cifar("evaluate", run_id, "--format", "json")
    assert evaluated.code == 0, evaluated.output
    assert [row["class"] for row in json.loads(evaluated.stdout)["classes"]] == list(CLASSES)

    from cifar_mlflow.config.rules import resolve
    from cifar_mlflow.jobs.predict import load
    from cifar_mlflow.learning.data import datasets, image_folder

    found = image_folder.read(resolve({"dataset": f"{photos}/", "image_size": 12}), datasets.no_bar)
    few = [photos / found.names[row] for row in found.rows["test"][:3]]
    predicted = cifar("predict", run_id, *few, "--format", "json", "--top", 2)
    told = [json.loads(line)["predictions"] for line in predicted.stdout.splitlines()]
    ours = load(run_id)(found.pixels["test"][:3])
    for line, row in zip(told, ours, strict=True):
        assert {guess["class"]: guess["probability"] for guess in line} == {
            name: float(f"{probability:.7g}") for name, probability in zip(CLASSES, row, strict=True)
        }

    again = cifar("reproduce", run_id)
    assert again.code == 0, again.output
    assert "identical" in again.stdout


def test_a_folder_that_moved_is_found_and_one_that_changed_is_refused(photos, work, cifar):
    run_id, _ = train(cifar, photos)
    (work / "disk").mkdir()
    photos.rename(work / "disk" / "photos")
    lost = cifar("evaluate", run_id)
    assert lost.code == 3
    assert f"{photos}, on which the run {run_id} trained, is not there; say by --data-dir where it is" in lost.stderr
    for place in (work / "disk", work / "disk" / "photos"):
        assert cifar("evaluate", run_id, "--data-dir", place).code == 0
    (work / "disk" / "photos" / "dark" / "3.jpg").unlink()
    changed = cifar("evaluate", run_id, "--data-dir", work / "disk")
    assert changed.code == 3
    assert f"is not the data that the run {run_id} trained on" in changed.stderr


def test_files_that_cannot_be_read_are_passed_over_and_recorded(photos, cifar, client):
    (photos / "dark" / "empty.jpg").touch()
    refused = cifar("train", "--dataset", f"{photos}/", "--image-size", 12, *FEW)
    assert refused.code == 3
    assert "dark/empty.jpg: it is empty" in refused.stderr
    run_id, outcome = train(cifar, photos, "--skip-unreadable")
    assert "warning: left out: 1 file that cannot be read: dark/empty.jpg" in outcome.stderr
    assert client().get_run(run_id).data.params["skip_unreadable"] == "true"
    (listed,) = [each.path for each in client().list_artifacts(run_id) if each.path.startswith("skipped")]
    content = Path(client().download_artifacts(run_id, listed)).read_text()
    assert content == "file,reason\ndark/empty.jpg,it is empty\n"


def test_a_broken_off_run_goes_on(photos, cifar, client, runs, monkeypatch):
    from cifar_mlflow.learning.training import Training

    plain = Training._train_epoch

    def interrupted(self, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return plain(self, epoch)

    (photos / "dark" / "empty.jpg").touch()
    words = ("--image-size", 12, "--test-size", 9, "--skip-unreadable", *FEW)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_train_epoch", interrupted)
        assert cifar("train", "--dataset", f"{photos}/", *words).code == 130
    (run,) = runs()
    moved = photos.rename(photos.with_name("elsewhere"))
    resumed = cifar("train", "--resume", run.info.run_id, "--data-dir", moved)
    assert resumed.code == 0, resumed.output
    assert "warning: left out: 1 file that cannot be read: dark/empty.jpg" in resumed.stderr
    assert client().get_run(run.info.run_id).info.status == "FINISHED"
    evaluated = cifar("evaluate", run.info.run_id, "--data-dir", moved, "--format", "json")
    assert sum(row["images"] for row in json.loads(evaluated.stdout)["classes"]) == 9


def test_a_sweep_varies_the_size(photos, work, cifar, runs):
    spec = {
        "name": "sizes",
        "base": {"dataset": "photos/", "epochs": 1, "batch_size": 8, "scheduler": "none"},
        "space": {"image_size": [8, 12]},
        "workers": 1,
        "log_models": False,
    }
    (work / "sizes.yaml").write_text(yaml.safe_dump(spec))
    base_lacks_a_size = cifar("sweep", "sizes.yaml")
    assert base_lacks_a_size.code == 3
    assert "--image-size: say how many" in base_lacks_a_size.stderr
    spec["base"]["image_size"] = 8
    (work / "sizes.yaml").write_text(yaml.safe_dump(spec))
    for _ in range(2):  # the second start finds everything done
        outcome = cifar("sweep", "sizes.yaml")
        assert outcome.code == 0, outcome.output
    sizes = [run.data.params["image_size"] for run in runs() if run.data.tags["kind"] == "trial"]
    assert sorted(sizes) == ["12", "8"]


def test_other_images_score_a_model(photos, work, cifar):
    run_id, _ = train(cifar, photos)
    write_shades(work / "more", "test", count=5, first=500, size=64)
    outcome = cifar("evaluate", run_id, "--dataset", f"{work}/more/", "--format", "json")
    assert outcome.code == 0, outcome.output
    assert "test_more_accuracy" in json.loads(outcome.stdout)
    write_photo(work / "more", "test/bird/1.png", 1)
    refused = cifar("evaluate", run_id, "--dataset", f"{work}/more/")
    assert refused.code == 3
    assert "bird: no class of the model, which has bright, dark" in refused.stderr


def test_nothing_is_begun_with_a_faulty_folder(work, cifar, runs):
    write_parts(work / "bad", count=3)
    shutil.copy(work / "bad/train/cat/100000.png", work / "bad/test/dog/x.png")
    (work / "bad/train/cat/no.jpg").write_text("x")
    outcome = cifar("train", "--dataset", "bad/", *FEW)
    assert outcome.code == 3
    assert outcome.stderr.count("\n  - ") == 2
    assert runs() == []


def test_a_relative_folder_is_refused_under_mlflow_run(work, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    outcome = run_here("train", "--dataset", "photos/", "--epochs", 1)
    assert outcome.code == 2
    assert "--dataset: 'photos/' is relative; give an absolute path under `mlflow run`" in outcome.stderr


class TestData:
    def test_tells_what_is_there(self, work, cifar):
        write_parts(work / "photos", count=6, size=(20, 20))
        outcome = cifar("data", "photos")
        assert outcome.code == 0, outcome.output
        lines = outcome.stdout.splitlines()
        assert lines[0].split() == ["class", "train", "validation", "test"]
        assert sum(map(int, lines[3].split()[1:])) == 24
        assert "sizes: 20 x 20 (24)" in lines

    def test_tells_faults_and_ends_with_them(self, work, cifar):
        write_parts(work / "photos", count=6)
        shutil.copy(work / "photos/train/cat/100000.png", work / "photos/test/dog/x.png")
        shutil.copy(work / "photos/train/cat/100001.png", work / "photos/train/cat/twice.png")
        outcome = cifar("data", "photos", "--format", "json")
        assert outcome.code == 3
        told = json.loads(outcome.stdout)
        assert len(told["faults"]) == 1
        assert sorted(map(sorted, told["same"])) == [
            ["test/dog/x.png", "train/cat/100000.png"],
            ["train/cat/100001.png", "train/cat/twice.png"],
        ]
        assert "1 fault to see to" in outcome.stderr

    def test_draws_a_contact_sheet(self, work, cifar):
        write_classes(work / "photos", 8, classes=("cat", "dog", "a$b"))
        outcome = cifar("data", "photos", "--contact-sheet", "sheet.png", "--format", "csv")
        assert outcome.stdout.splitlines()[0] == "class,train,validation,test"
        with Image.open("sheet.png") as sheet:
            assert sheet.size[0] > 200
        assert [path.name for path in work.iterdir() if "sheet" in path.name] == ["sheet.png"]

    def test_splits_as_train_would(self, work, cifar):
        write_classes(work / "photos", 20)
        outcome = cifar("data", "photos", "--test-size", 10, "--validation-size", 4, "--format", "csv")
        assert outcome.stdout.splitlines()[1:] == ["cat,13,2,5", "dog,13,2,5"]

    @pytest.mark.parametrize(("what", "told"), [("nowhere", "it cannot be read: "), ("file", "this is a file; needed")])
    def test_of_no_folder_is_one_message(self, work, cifar, what, told):
        (work / "file").touch()
        outcome = cifar("data", what)
        assert outcome.code == 3
        assert told in outcome.stdout

    def test_is_an_entry_point_of_the_project(self, work):
        from mlflow.projects import utils

        entry = utils.load_project(str(Path(__file__).parents[3])).get_entry_point("data")
        command = entry.compute_command({"directory": ".", "format": "json"}, str(work))
        assert command == f"python -m cifar_mlflow data {work} --format json"

    def test_refuses_a_wrong_option(self, work, cifar):
        outcome = cifar("data", "photos", "--image-size", "huge")
        assert outcome.code == 2
        assert "--image-size: 'huge' is refused" in outcome.stderr
