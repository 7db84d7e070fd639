"""A process is known again: whatever the host is called, whatever the clock says, and beside any container."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes

HERE = {"boot_id": "boot", "machine_id": "machine", "pid_namespace": processes.INITIAL_NAMESPACE}


@pytest.fixture
def place(monkeypatch):
    """Has this process be somewhere: `HERE`, but for what is given."""

    def stand(**changes):
        monkeypatch.setattr(processes, "_place", lambda: HERE | changes)

    stand()
    return stand


@pytest.fixture
def child():
    """A process that lives, its number and its ticks."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def tags_of(process, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process.pid)
        return processes.process_tags()


def verdict(tags):
    """elsewhere, alive or gone."""
    assert not (processes.is_elsewhere(tags) and processes.is_gone(tags))
    return "elsewhere" if processes.is_elsewhere(tags) else "gone" if processes.is_gone(tags) else "alive"


def test_tags_are_always_complete():
    """A run that is resumed elsewhere must not keep a part of the tags of the machine before."""
    names = {"host", "process_id", "process_started", "process_ticks", "boot_id", "machine_id", "pid_namespace"}
    assert set(processes.process_tags()) == names
    assert all(processes.process_tags().values())


def test_this_process_is_alive():
    assert verdict(processes.process_tags()) == "alive"


def test_the_host_may_be_renamed(monkeypatch):
    tags = processes.process_tags()
    monkeypatch.setattr(socket, "gethostname", lambda: "on-another-network")
    assert verdict(tags) == "alive"


def test_the_clock_may_be_set(monkeypatch):
    """As after a suspension: what psutil tells of the start is the clock's, less the time since the boot."""
    tags = processes.process_tags()
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: real(process) + 3600)
    monkeypatch.setattr(psutil, "boot_time", lambda: time.time() + 3600)
    assert verdict(tags) == "alive"


def test_a_number_that_was_given_again_is_another_process(child, monkeypatch):
    tags = tags_of(child, monkeypatch)
    assert verdict(tags) == "alive"
    assert verdict(tags | {"process_ticks": str(int(tags["process_ticks"]) - 1)}) == "gone"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="zombies")
def test_a_zombie_is_gone(child, monkeypatch):
    tags = tags_of(child, monkeypatch)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert processes._status(child.pid)[0] == "Z"
    assert verdict(tags) == "gone"
    assert verdict({name: tags[name] for name in ("host", "process_id", "process_started")}) == "gone"


def test_a_process_of_another_user_that_proc_hides_may_live(child, monkeypatch):
    tags = tags_of(child, monkeypatch)
    monkeypatch.setattr(processes, "_status", lambda number: None)

    def kill(number, which):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", kill)
        assert verdict(tags) == "alive"


class TestWhere:
    def test_two_containers_of_one_name_on_one_machine(self, place):
        tags = processes.process_tags()
        place(pid_namespace="pid:[4026532999]")
        assert verdict(tags) == "elsewhere"

    def test_two_machines_of_one_name(self, place):
        tags = processes.process_tags()
        place(boot_id="another boot", machine_id="another machine")
        assert verdict(tags) == "elsewhere"

    def test_two_machines_without_the_id_of_a_boot(self, place):
        place(boot_id=processes.UNKNOWN, pid_namespace=processes.UNKNOWN)
        tags = processes.process_tags()
        assert verdict(tags) == "alive"
        place(boot_id=processes.UNKNOWN, pid_namespace=processes.UNKNOWN, machine_id="another machine")
        assert verdict(tags) == "elsewhere"

    def test_a_machine_that_was_started_anew(self, place, monkeypatch):
        tags = processes.process_tags()
        place(boot_id="the next boot")
        monkeypatch.setattr(psutil, "boot_time", lambda: float(tags["process_started"]) + 60)
        assert verdict(tags) == "gone"

    def test_a_machine_that_was_copied_with_its_id(self, place, monkeypatch):
        tags = processes.process_tags()
        place(boot_id="of the copy")
        monkeypatch.setattr(psutil, "boot_time", lambda: float(tags["process_started"]) - 60)
        assert verdict(tags) == "elsewhere"

    def test_containers_of_one_image_on_two_machines(self, place, monkeypatch):
        """They have the same id, which came with the image; the number of a namespace may be the same by chance."""
        place(pid_namespace="pid:[4026532999]")
        tags = processes.process_tags()
        place(pid_namespace="pid:[4026532999]", boot_id="of the other machine")
        monkeypatch.setattr(psutil, "boot_time", lambda: float(tags["process_started"]) + 60)
        assert verdict(tags) == "elsewhere"

    def test_one_of_the_same_name_is_told_apart(self, place):
        tags = processes.process_tags()
        place(pid_namespace="pid:[4026532999]")
        with pytest.raises(TrackingError, match=r"on \S+ \(a container or another machine of that name\)"):
            processes.refuse_if_busy("it", "0" * 32, tags, "go on")


class TestOfEarlierVersions:
    """Which knew the host's name, the number and the start."""

    @pytest.fixture
    def tags(self):
        return {name: processes.process_tags()[name] for name in ("host", "process_id", "process_started")}

    def test_alive(self, tags):
        assert verdict(tags) == "alive"

    def test_gone(self, tags):
        assert verdict(tags | {"process_started": "1.00"}) == "gone"

    def test_elsewhere(self, tags):
        assert verdict(tags | {"host": "another"}) == "elsewhere"

    def test_without_a_process(self):
        assert verdict({"host": socket.gethostname()}) == "gone"
