"""Checkpoint files: whole or refused, whatever happened to them, and no pickle is run."""

import os
import pickle
import random
import subprocess

import pytest
import torch

from cifar_mlflow.errors import ModelError, TrainingError
from cifar_mlflow.learning import checkpoint_files
from cifar_mlflow.learning.checkpoint_files import MAGIC, Checkpoints


def content(number):
    torch.manual_seed(number)
    return {"number": number, "weights": torch.rand(500), "best": {}, "results": [{"loss": 0.1}]}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "run")


@pytest.fixture
def two(checkpoints):
    """The second last and the last file of three."""
    for number in (1, 2, 3):
        checkpoints.write(content(number))
    return sorted(checkpoints.directory.iterdir())


def read(directory):
    found, faults = Checkpoints(directory).read()
    return found and found["number"], faults


def test_what_was_written_comes_back(checkpoints):
    checkpoints.write(content(1))
    found, faults = Checkpoints(checkpoints.directory).read()
    assert found["weights"].equal(content(1)["weights"])
    assert found["results"] == [{"loss": 0.1}]
    assert faults == []


def test_the_last_two_are_kept(checkpoints, two):
    assert [path.name for path in two] == ["000002.checkpoint", "000003.checkpoint"]
    assert read(checkpoints.directory) == (3, [])
    assert checkpoints.last == two[1]


def test_none_is_none(tmp_path):
    assert read(tmp_path / "nowhere") == (None, [])


def test_a_file_cut_anywhere_gives_way_to_the_one_before(checkpoints, two):
    whole = two[1].read_bytes()
    for cut in range(20):
        two[1].write_bytes(whole[: len(whole) * cut // 20])
        found, (fault,) = read(checkpoints.directory)
        assert found == 2
        assert f"{two[1]} is damaged (" in fault


def test_a_flipped_bit_is_always_seen(checkpoints, two):
    whole = two[1].read_bytes()
    draw = random.Random(0)
    for _ in range(200):
        bit = draw.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        two[1].write_bytes(changed)
        found, faults = read(checkpoints.directory)
        assert (found, len(faults)) == (2, 1), bit


def test_if_none_is_whole_it_says_so(checkpoints, two):
    for path in two:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError) as error:
        read(checkpoints.directory)
    assert all(f"{path} is damaged (its content does not match its digest)" in str(error.value) for path in two)
    assert f"Put a copy of one back, or remove {checkpoints.directory} to begin again" in str(error.value)


def test_after_a_damaged_one_the_whole_one_before_it_is_kept(checkpoints, two):
    two[1].write_bytes(b"")
    again = Checkpoints(checkpoints.directory)
    again.read()
    again.write(content(4))
    assert [path.name for path in sorted(again.directory.iterdir())] == ["000002.checkpoint", "000004.checkpoint"]


def test_a_pickle_is_not_run_even_if_its_digest_fits(checkpoints, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    checkpoints.write(content(1))
    torch.save(Evil(), tmp_path / "evil")
    for payload in (pickle.dumps(Evil()), (tmp_path / "evil").read_bytes()):
        (path,) = checkpoints.directory.iterdir()
        path.write_bytes(MAGIC + checkpoint_files.hashlib.sha256(payload).digest() + payload)
        with pytest.raises(ModelError, match="it cannot be loaded"):
            read(checkpoints.directory)
    assert not (tmp_path / "ran").exists()


def test_a_write_that_is_broken_off_leaves_nothing_behind(checkpoints, two, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(content(4))
    assert sorted(checkpoints.directory.iterdir()) == two
    assert read(checkpoints.directory) == (3, [])


def test_a_system_that_opens_no_directory_as_windows_is_no_obstacle(checkpoints, monkeypatch):
    plain = os.open

    def refuse(path, *arguments):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied")
        return plain(path, *arguments)

    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.setattr(os, "open", refuse)
    checkpoints.write(content(1))
    assert read(checkpoints.directory) == (1, [])


def test_what_a_killed_process_left_is_written_over(checkpoints, two):
    (checkpoints.directory / ".000004.checkpoint.part").write_bytes(b"half")
    checkpoints.write(content(4))
    assert [path.name for path in sorted(checkpoints.directory.iterdir())] == ["000003.checkpoint", "000004.checkpoint"]


def test_remove_leaves_no_directory(checkpoints, two):
    (checkpoints.directory / ".000004.checkpoint.part").write_bytes(b"half")
    checkpoints.remove()
    assert not checkpoints.directory.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_the_one_before(small_disk):
    checkpoints = Checkpoints(small_disk / "run")
    checkpoints.write(content(1))
    with pytest.raises(TrainingError, match=r"no checkpoint can be written to .*run \(No space left on device\)"):
        checkpoints.write({**content(2), "weights": torch.rand(50_000)})
    assert [path.name for path in checkpoints.directory.iterdir()] == ["000001.checkpoint"]
    assert read(checkpoints.directory) == (1, [])
