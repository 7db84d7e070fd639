"""Servers that tests start for themselves: MLflow's, and PostgreSQL behind it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what MLflow has set in it, for a process on one core."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | more


def wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 300) -> bytes:
    """What the address answers, as soon as it does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5).read()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


@contextlib.contextmanager
def running(command: list, log: Path, health: str, **more: str) -> Iterator[subprocess.Popen]:
    """The command, once `health` answers; killed with its children at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment(**more), stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(health, process, log)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def mlflow_server(directory: Path, store: str | None = None, port: int | None = None) -> Iterator[str]:
    """The address of an `mlflow server` over `store` (default: sqlite in the directory)."""
    port = port or free_port()
    command = [
        *(BIN / "mlflow", "server", "-w", "1", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", store or f"sqlite:///{directory}/server.db"),
        *("--artifacts-destination", directory / "artifacts"),
    ]
    address = f"http://127.0.0.1:{port}"
    with running(command, directory / "server.log", f"{address}/health", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
        yield address


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The URI of an empty database, of a PostgreSQL of its own; skips where PostgreSQL is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(installed[-1]) if installed else None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed")
    binaries, port = Path(initdb).parent, free_port()
    # PostgreSQL refuses to run as root, and its user cannot enter pytest's directories.
    as_user = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
    directory = Path(tempfile.mkdtemp(prefix="cifar-mlflow-postgresql-", dir="/tmp"))
    if as_user:
        shutil.chown(directory, "postgres")
    data = directory / "data"

    def call(*words: object) -> None:
        subprocess.run([*as_user, *map(str, words)], cwd="/tmp", check=True, capture_output=True)

    try:
        call(initdb, "-D", data, "-U", "cifar", "--auth=trust", "-E", "UTF8")
        options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        call(binaries / "pg_ctl", "-D", data, "-o", options, "-l", directory / "log", "-w", "start")
        yield f"postgresql+psycopg://cifar@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            call(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(directory, ignore_errors=True)
