"""`predict`: the forms of what it prints, and outputs that take no more."""

import csv
import io
import os
import signal
from pathlib import Path

import pytest
from PIL import Image
from support import tiny_arrays

TEST_IMAGES = tiny_arrays()["x_test"]


def test_a_table_is_printed_for_people(cifar, trained, photos):
    lines = cifar("predict", trained.info.run_id, photos, "--top", 2).stdout.splitlines()
    assert lines[0] == "class  probability  class  probability  image"
    for index, line in enumerate(lines[1:]):
        first, sure, second, unsure, image = line.split()
        assert {first, second} < set("012")
        assert 100 >= float(sure.rstrip("%")) >= float(unsure.rstrip("%")) >= 0
        assert image == f"photos/{index}.png"
        assert line.index(image) == lines[0].index("image")


def test_csv_has_a_row_an_image_and_rank(cifar, trained, predicted, photos):
    text = cifar("predict", trained.info.run_id, photos, "--top", 2, "--format", "csv").stdout
    assert text.startswith("image,rank,class,probability\n")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["image"], row["rank"]) for row in rows[:3]] == [
        ("photos/0.png", "1"), ("photos/0.png", "2"), ("photos/1.png", "1"),
    ]  # fmt: skip
    told = [each for line in predicted(photos, "--top", 2) for each in line["predictions"]]
    assert [(row["class"], float(row["probability"])) for row in rows] == [
        (each["class"], each["probability"]) for each in told
    ]


def test_a_name_of_any_bytes_is_printed(cifar, predicted, trained, photos):
    name = b"photos/two\nlines, \xff.png"
    os.rename("photos/0.png", name)
    table, rows = (cifar("predict", trained.info.run_id, photos, "--format", form).stdout for form in ("table", "csv"))
    assert table.splitlines()[-1].endswith("  photos/two\\nlines, \\udcff.png")
    assert list(csv.DictReader(io.StringIO(rows)))[-1]["image"] == "photos/two\nlines, \\udcff.png"
    assert os.fsencode(predicted(photos)[-1]["image"]) == name


def test_a_file_takes_the_output_whole(cifar, trained, photos, work):
    outcome = cifar("predict", trained.info.run_id, photos, "--output", "out.txt")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "written to out.txt\n")
    assert (work / "out.txt").read_text() == cifar("predict", trained.info.run_id, photos).stdout


def test_an_output_that_was_broken_off_leaves_what_was_there(cifar, trained, photos, work, monkeypatch):
    from cifar_mlflow.jobs import predict as job

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)

    (work / "out.txt").write_text("before")
    before = sorted(work.iterdir())
    monkeypatch.setattr(job, "line", interrupted)
    outcome = cifar("predict", trained.info.run_id, photos, "--output", "out.txt")
    assert (outcome.code, outcome.stderr.strip()) == (130, "stopped by SIGINT")
    assert (work / "out.txt").read_text() == "before"
    assert sorted(work.iterdir()) == before


@pytest.mark.parametrize(
    ("path", "message"),
    [("none/out.txt", "No such file or directory"), (".", "this is a directory"), ("", "this is a directory")],
)
def test_an_output_that_cannot_be_written_is_told_before_anything(cifar, trained, photos, path, message):
    outcome = cifar("predict", trained.info.run_id, photos, "--output", path)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr == f"error: 1 fault in the options:\n  - --output: {path} cannot be written: {message}\n"


def test_a_full_disk_is_told(cifar, trained, photos):
    outcome = cifar("predict", trained.info.run_id, photos, "--output", "/dev/full")
    assert outcome.code == 2
    assert "--output: /dev/full cannot be written: No space left on device" in outcome.stderr
    assert Path("/dev/full").is_char_device()


def test_lines_come_before_the_last_image_is_read(spawn, trained, photos, work):
    """The last image is destroyed when the first answer is there, and so it is skipped."""
    for index in range(6, 4000):
        os.link(photos / f"{index % 6}.png", photos / f"{index}.png")
    Image.fromarray(TEST_IMAGES[0]).save(photos / "last.png")
    process = spawn("predict", trained.info.run_id, photos, "--format", "csv")
    assert process.stdout.readline() == "image,rank,class,probability\n"
    assert process.stdout.readline().startswith("photos/0.png,1,")
    (photos / "last.png").write_text("no image")
    assert process.stdout.read().count("\n") == 3999
    assert process.wait(60) == 3
    assert process.stderr.read().endswith("error: 1 of 4,001 images could not be read\n")


def test_a_reader_that_leaves_ends_it_in_silence(spawn, trained, photos):
    for index in range(6, 3000):
        os.link(photos / f"{index % 6}.png", photos / f"{index}.png")
    process = spawn("predict", trained.info.run_id, photos)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141
    process.stdout = None
