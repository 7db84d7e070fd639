"""Which disk is full."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from cifar_mlflow.directories import no_room, unwritable

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch, work):
    """Has directories below `work` on disks with so many bytes of room each; all else has plenty."""

    def be(**bytes_free):
        for name in bytes_free:
            (work / name).mkdir()
        usage = {work / name: number for name, number in bytes_free.items()}
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, usage.get(Path(path), 10**12)))
        monkeypatch.setattr("tempfile.tempdir", str(work / "temporary"))

    return be


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_it_is_the_one_with_the_least_room(free, work):
    free(temporary=1000, spool=10**9)
    told = f"no room is left in {work}/temporary (0.0 MB on that disk): make some there, or set TMPDIR to another"
    assert no_room(FULL, {work / "spool": "STATE"}) == f"{told} directory"


def test_it_may_be_the_place_beside(free, work):
    free(temporary=10**9, spool=0)
    assert f"in {work}/spool" in no_room(FULL, {work / "spool": "STATE"})
    assert "or set STATE to" in no_room(FULL, {work / "spool": "STATE"})


def test_it_may_be_where_the_file_was_to_be(free, work):
    free(temporary=10**9, artifacts=5)
    error = OSError(errno.ENOSPC, "full", "from", None, str(work / "artifacts" / "file"))
    assert no_room(error) == f"no room is left in {work}/artifacts (0.0 MB on that disk): make some there"


def test_mlflow_tells_of_it_in_words(free):
    free(temporary=0)
    assert no_room(RuntimeError("File a: [Errno 28] No space left on device"))
    assert no_room(OSError(errno.EACCES, "Permission denied")) is None


def test_nothing_is_left_by_a_look(work):
    (work / "file").write_text("")
    assert unwritable(work / "none" / "yet") is None
    assert unwritable(work / "file" / "below") == "Not a directory"
    assert [path.name for path in work.iterdir()] == ["file"]


def test_a_model_is_not_begun_on_a_disk_that_cannot_hold_it(free, work, monkeypatch):
    """Torch would end the whole process, and leave the run RUNNING."""
    import torch

    from cifar_mlflow.errors import TrackingError
    from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
    from cifar_mlflow.tracking.writing import model_files

    run = SpooledRecorder.start(None, "e", "n", {})
    free(temporary=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 3_000_000 if "spool" in str(path) else 10**9))
    monkeypatch.setattr(model_files, "save", lambda *arguments: pytest.fail("it was begun"))
    empty = torch.zeros(0).numpy()
    model = model_files.ExportedModel(torch.nn.Linear(9, 9), "n", "last", 1, empty, empty, ("a", "b"), ())
    with pytest.raises(TrackingError, match=r"no room is left in .*/spool/\w+ \(3\.0 MB on that disk\)"):
        run.log_models([(model, {})])
    run.close()
