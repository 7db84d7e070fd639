"""Where checkpoints lie, and what is said of a file that cannot be read."""

from pathlib import Path

import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.learning.checkpoint_files import Checkpoints


def test_their_directory_is_made_with_all_above_it(tmp_path):
    checkpoints = Checkpoints(tmp_path / "state" / "checkpoints" / "run")
    checkpoints.write({"number": 1})
    assert Checkpoints(checkpoints.directory).read() == ({"number": 1}, [])


@pytest.mark.parametrize(
    ("error", "told"),
    [(PermissionError(13, "Permission denied"), "Permission denied"), (OSError(), "it cannot be read")],
)
def test_a_file_that_cannot_be_read_is_told_with_the_reason(tmp_path, monkeypatch, error, told):
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.write({"number": 1})
    checkpoints.write({"number": 2})
    real = Path.read_bytes

    def fail(path):
        if path.name.startswith("000002"):
            raise error
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    found, faults = Checkpoints(checkpoints.directory).read()
    assert (found, faults) == ({"number": 1}, [f"{checkpoints.last} is damaged ({told})"])
    checkpoints.last.with_name("000001.checkpoint").unlink()
    with pytest.raises(ModelError, match=rf"no checkpoint is whole: .*000002.checkpoint is damaged \({told}\)\. Put a"):
        Checkpoints(checkpoints.directory).read()
