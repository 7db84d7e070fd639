"""Wrong things that a new user tries with promote, list, data and ui, and stores that another hand has changed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_mlflow.jobs.browsing import server


@pytest.fixture
def photos(work) -> Path:
    """A folder of two classes with six images each."""
    for number, name in enumerate(("cat", "dog")):
        (work / "photos" / name).mkdir(parents=True)
        for image in range(6):
            draws = np.random.default_rng(10 * number + image)
            pixels = draws.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(work / "photos" / name / f"{image}.png")
    return work / "photos"


@pytest.fixture
def in_seconds():
    """What waits for ever ends in an error after as many seconds as a test may take."""

    def end(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def change(work):
    """Changes the rows of the store's table of runs."""

    def execute(assignment, *values):
        with contextlib.closing(sqlite3.connect(work / "mlflow.db")) as database:
            database.execute(f"UPDATE runs SET {assignment}", values)
            database.commit()

    return execute


class TestPromote:
    @pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED", "FAILED", "FINISHED"])
    def test_of_a_run_without_a_model_leaves_it_as_it_is(self, cifar, client, status):
        run = client().create_run(client().create_experiment("images")).info.run_id
        client().update_run(run, status=status)
        outcome = cifar("promote", run)
        assert (outcome.code, outcome.stderr) == (6, f"error: the run {run} ({status}) has no model\n")
        assert client().get_run(run).info.status == status

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (("",), 6, "'' names no model in"),
            ((" ",), 6, "' ' names no model in"),
            (("--best-of", ""), 6, "there is no sweep '' in"),
            (("models:/tiny/" + "9" * 40,), 6, "names no version; give models:/NAME/VERSION"),
            (("1" * 32, "--alias", "x" * 300), 2, "it has 300 characters; at most 250 are allowed"),
            (("1" * 32, "--best-of", "quick"), 2, "give either MODEL or --best-of SWEEP"),
        ],
    )
    def test_of_what_is_no_model_is_told_by_its_name(self, cifar, words, code, told):
        outcome = cifar("promote", *words)
        assert outcome.code == code
        assert told in outcome.stderr


class TestData:
    def test_of_nothing_does_not_look_through_the_whole_disk(self, cifar, in_seconds):
        outcome = cifar("data", "")
        assert (outcome.code, "DIR: no folder is named" in outcome.stderr) == (2, True)

    def test_overwrites_no_image_of_the_folder_with_its_contact_sheet(self, cifar, photos):
        image = photos / "cat" / "0.png"
        before = image.read_bytes()
        outcome = cifar("data", photos, "--contact-sheet", image)
        assert (outcome.code, image.read_bytes() == before) == (2, True)
        assert f"--contact-sheet: {image} would be a file of {photos} itself" in outcome.stderr

    def test_writes_a_contact_sheet_through_a_pipe_and_puts_no_file_in_its_place(self, cifar, photos, work):
        os.mkfifo(work / "pipe")
        reader = os.open(work / "pipe", os.O_RDWR)  # which waits for no writer
        outcome = cifar("data", photos, "--contact-sheet", "pipe")
        assert outcome.code == 0, outcome.output
        assert (work / "pipe").is_fifo()
        assert os.read(reader, 8) == b"\x89PNG\r\n\x1a\n"
        os.close(reader)

    def test_tells_of_a_contact_sheet_that_cannot_be_written_before_it_reads_anything(self, cifar, photos):
        outcome = cifar("data", photos, "--contact-sheet", "nowhere/sheet.png")
        assert (outcome.code, outcome.stdout) == (2, "")
        assert "--contact-sheet: nowhere/sheet.png cannot be written: No such file" in outcome.stderr

    def test_draws_classes_whose_names_are_no_text(self, cifar, photos, work):
        os.mkdir(os.fsencode(photos) + b"/\xff")
        Image.new("RGB", (12, 12)).save(photos / "seventh.png")
        os.rename(photos / "seventh.png", os.fsencode(photos) + b"/\xff/7.png")
        outcome = cifar("data", photos, "--contact-sheet", "sheet.png")
        assert outcome.code == 3
        assert r"'\udcff': no class can have this name" in outcome.stdout
        assert Image.open(work / "sheet.png").format == "PNG"

    def test_counts_an_image_beside_the_classes_once(self, cifar, photos):
        Image.new("RGB", (12, 12)).save(photos / "loose.png")
        outcome = cifar("data", photos)
        assert "left out: 1 image beside the folders of the classes: loose.png" in outcome.stdout


class TestAChangedStore:
    @pytest.mark.parametrize("moment", [10**17, -(10**17), 2**62])
    def test_shows_runs_of_times_that_no_calendar_has(self, cifar, trained, change, moment):
        change("start_time = ?", moment)
        assert trained.info.run_id[:8] in cifar("list").stdout
        (told,) = json.loads(cifar("list", "--format", "json").stdout)
        (row,) = csv.DictReader(io.StringIO(cifar("list", "--format", "csv").stdout))
        assert (told["started"], row["started"]) == (None, "")
        assert cifar("compare", "tiny").code == 0

    def test_counts_no_look_that_has_thousands_of_digits(self, cifar, trained, client):
        client().set_tag(trained.info.run_id, "test_evaluations", "9" * 5000)
        assert cifar("list").code == 0
        outcome = cifar("compare", "tiny", "--with-test")
        assert outcome.code == 0, outcome.output

    def test_lists_an_accuracy_that_is_no_number_as_none(self, cifar, trained, client):
        client().log_metric(trained.info.run_id, "final_val_accuracy", float("nan"), step=9)
        told = json.loads(cifar("list", "--format", "json").stdout, parse_constant=pytest.fail)
        assert [run["accuracy"] for run in told] == [None]

    @pytest.mark.parametrize("content", ["", "[]", "flavors: 1\n"])
    def test_tells_of_a_damaged_model_file(self, cifar, trained, work, content):
        for path in work.rglob("MLmodel"):
            path.write_text(content)
        Image.new("RGB", (8, 8)).save("a.png")
        outcomes = [cifar("predict", trained.info.run_id, "a.png"), *(cifar(word, trained.info.run_id) for word in (
            "evaluate", "promote"))]  # fmt: skip
        assert [outcome.code for outcome in outcomes] == [6, 6, 7]
        assert "does not tell its classes and image size" in outcomes[0].stderr
        assert "(MLmodel was changed), so they are not loaded" in outcomes[1].stderr
        assert "the model has no signature" in outcomes[2].stdout


def test_a_pipe_is_no_dataset_and_nothing_waits_for_it(cifar, work, runs, in_seconds):
    os.mkfifo(work / "images.npz")
    outcome = cifar("train", "--dataset", "images.npz", "--epochs", "1", "--scheduler", "none")
    assert (outcome.code, runs()) == (3, [])
    assert "images.npz: this is no file" in outcome.stderr


def test_pages_that_do_not_come_up_are_told_of_with_the_log(cifar, trained, monkeypatch):
    monkeypatch.setattr(server.sys, "executable", "false")
    outcome = cifar("ui", "--no-browser")
    assert outcome.code == 4
    assert "MLflow's server did not come up on port 5000; what it printed is in " in outcome.stderr


def test_pages_that_are_gone_are_told_of(cifar, trained, monkeypatch):
    monkeypatch.setattr(server.sys, "executable", "false")
    monkeypatch.setattr(server, "_wait_until_it_answers", lambda process, port, log: None)
    outcome = cifar("ui", "--no-browser")
    assert outcome.code == 4
    assert "error: MLflow's server has ended (exit code 1); what it printed is in " in outcome.stderr
