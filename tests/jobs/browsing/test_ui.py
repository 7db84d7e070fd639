"""`cifar-mlflow ui`: MLflow's own pages, at the leaderboard, for as long as the command lives."""

from __future__ import annotations

import signal
import socket
import time
import urllib.request

import psutil
import pytest
from servers import free_port


def test_the_pages_are_there_until_ctrl_c(trained, spawn):
    port = free_port()
    command = spawn("ui", "--no-browser", "--port", port)
    address = command.stdout.readline().strip()
    page = f"#/experiments/{trained.info.experiment_id}/runs?viewStateShareKey=cifar-mlflow.all.leaderboard"
    assert address.startswith(f"http://127.0.0.1:{port}/{page}")
    assert b"<title>MLflow</title>" in urllib.request.urlopen(address, timeout=30).read()
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=30) in (0, 130)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_nothing_is_left_of_a_command_that_was_killed(trained, spawn):
    port = free_port()
    command = spawn("ui", "--no-browser", "--port", port)
    command.stdout.readline()
    (server,) = psutil.Process(command.pid).children()
    started = [server, *server.children(recursive=True)]
    command.kill()
    deadline = time.monotonic() + 20
    while any(is_alive(process) for process in started):
        assert time.monotonic() < deadline, started
        time.sleep(0.05)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_port_that_is_taken_is_refused(cifar, trained):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = cifar("ui", "--no-browser", "--port", port)
    assert outcome.code == 2
    assert f"--port: {port} cannot be had on 127.0.0.1" in outcome.stderr
