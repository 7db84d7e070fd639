"""What tells machines and processes apart where a system tells little, and what is said of a process."""

import os
import socket

import psutil
import pytest

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes

HERE = {"boot_id": "boot", "machine_id": "machine", "pid_namespace": processes.INITIAL_NAMESPACE}


@pytest.fixture
def files(monkeypatch):
    """The files of this machine that tell something; all others are not there."""
    there = {}
    monkeypatch.setattr(processes, "_content", lambda path: there.get(path, ""))
    return there


@pytest.fixture
def place(monkeypatch):
    def stand(**changes):
        monkeypatch.setattr(processes, "_place", lambda: HERE | changes)

    stand()
    return stand


def test_a_machine_is_known_by_its_id_which_is_not_told(files):
    files["/etc/machine-id"] = "secret"
    known = processes._machine_id()
    assert len(known) == 32
    assert known != "secret"
    files["/etc/machine-id"] = "another"
    assert processes._machine_id() != known
    files["/etc/machine-id"], files["/var/lib/dbus/machine-id"] = "", "secret"
    assert processes._machine_id() == known


def test_a_machine_without_an_id_is_known_by_its_network_card_else_by_its_name(files, monkeypatch):
    drawn = 1 << 40  # the bit of an address that was drawn, which the next process draws anew
    addresses = iter([0x0242AC110002, 0x0242AC110002, 0x0242AC110003, drawn + 1, drawn + 2])
    monkeypatch.setattr(processes.uuid, "getnode", lambda: next(addresses))
    one, again, other, named, renamed = (processes._machine_id() for _ in range(5))
    assert one == again != other
    assert named == renamed != one
    monkeypatch.setattr(processes.uuid, "getnode", lambda: drawn)
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert processes._machine_id() != named


def test_where_nothing_tells_all_is_unknown_and_the_process_is_known_by_its_start(files, monkeypatch):
    def fail(path):
        raise OSError

    monkeypatch.setattr(os, "readlink", fail)
    processes._place.cache_clear()
    try:
        tags = processes.process_tags()
        assert (tags["boot_id"], tags["pid_namespace"], tags["process_ticks"]) == (processes.UNKNOWN,) * 3
        assert not processes.is_elsewhere(tags)
        assert processes.is_alive(tags)
        assert processes.is_gone(tags | {"process_started": str(float(tags["process_started"]) - 10)})
        assert processes.is_alive(tags | {"process_started": str(float(tags["process_started"]) - 1)})
        assert processes.is_elsewhere(tags | {"boot_id": "known elsewhere"})
    finally:
        processes._place.cache_clear()


def test_a_place_that_cannot_be_read_tells_nothing(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "text").write_text(" words \n")
    assert [processes._content(str(tmp_path / name)) for name in ("none", "binary", "text")] == ["", "", "words"]


@pytest.mark.parametrize("stat", ["", "12 (x) S", "12 (x) S 1 2"])
def test_a_process_of_which_little_is_told_is_unknown(files, stat):
    files["/proc/12/stat"] = stat
    assert processes._status(12) is None


def test_the_name_of_a_program_may_contain_anything(files):
    files["/proc/12/stat"] = "12 (a) b (c) Z " + " ".join(map(str, range(1, 50)))
    assert processes._status(12) == ("Z", "19")


@pytest.mark.parametrize("changes", [{"process_id": "no number"}, {"process_id": str(2**22 + 1)}])
def test_a_number_of_no_process_is_gone(changes):
    tags = processes.process_tags() | changes
    assert not processes.is_alive(tags)
    assert not processes.is_alive({name: tags[name] for name in ("host", "process_id", "process_started")})


@pytest.mark.parametrize("state", ["Z", "X"])
def test_what_has_ended_is_gone_though_its_number_is_there(files, state):
    tags = processes.process_tags()
    ticks = " ".join(["0"] * 18 + ["77"] + ["0"] * 9)
    files[f"/proc/{os.getpid()}/stat"] = f"1 (x) S {ticks}"
    assert processes.is_alive(tags | {"process_ticks": "77"})
    assert not processes.is_alive(tags | {"process_ticks": "78"})
    files[f"/proc/{os.getpid()}/stat"] = f"1 (x) {state} {ticks}"
    assert not processes.is_alive(tags | {"process_ticks": "77"})


def test_a_process_that_proc_hides_and_that_is_not_there_is_gone(place, monkeypatch):
    tags = processes.process_tags() | {"process_ticks": "5"}
    monkeypatch.setattr(processes, "_status", lambda number: None)
    assert processes.is_alive(tags)

    def kill(number, which):
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    assert not processes.is_alive(tags)


def test_of_another_boot_nothing_is_alive(place):
    tags = processes.process_tags()
    assert processes.is_alive(tags)
    place(boot_id="the next boot")
    assert not processes.is_alive(tags)


@pytest.mark.parametrize("boot_id", ["boot", processes.UNKNOWN])
def test_where_the_boot_is_the_same_or_unknown_it_is_no_earlier_one(place, monkeypatch, boot_id):
    tags = processes.process_tags() | {"pid_namespace": "pid:[1]", "boot_id": boot_id}
    monkeypatch.setattr(psutil, "boot_time", lambda: float(tags["process_started"]) + 60)
    assert processes.is_elsewhere(tags)


def test_a_process_is_told_by_its_number_and_its_machine(place):
    tags = processes.process_tags()
    told = f"process {os.getpid()} on {socket.gethostname()}"
    assert processes.describe(tags) == told
    assert processes.describe(tags | {"boot_id": "x", "machine_id": "y", "host": "far"}).endswith(" on far")
    place(pid_namespace="of a container")
    assert processes.describe(tags) == f"{told} (a container or another machine of that name)"


def test_who_is_at_work_is_told_with_what_to_do(place):
    tags = processes.process_tags()
    with pytest.raises(
        TrackingError, match=f"it is being trained by process {os.getpid()} on .*; wait for it, or stop"
    ):
        processes.refuse_if_busy("it", "ab" * 16, tags, "go on")
    processes.refuse_if_busy("it", "ab" * 16, tags | {"process_id": "no number"}, "go on")
    place(boot_id="another", machine_id="another")
    with pytest.raises(TrackingError) as raised:
        processes.refuse_if_busy("it", "ab" * 16, tags, "go on")
    assert f"set_terminated('{'ab' * 16}', 'KILLED')" in str(raised.value)
    assert str(raised.value).endswith("\nand go on")
