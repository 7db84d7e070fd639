"""Servers that tests start for themselves: MLflow's, and PostgreSQL behind it; a directory over HTTP."""

from __future__ import annotations

import contextlib
import getpass
import http.server
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import forked
import pytest
from support import with_tables

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what MLflow has set in it, for a process on one core."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | more


def wait_for(address: str, is_alive: Callable[[], bool], log: Path, seconds: float = 300) -> None:
    """Waits until the address of a server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert is_alive(), log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@contextlib.contextmanager
def serving(directory: Path, host: str = "127.0.0.1") -> Iterator[tuple[str, list[str]]]:
    """The address of the directory over HTTP, and the list of what is asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(directory))

        def log_request(self, code="-", size="-"):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_port}", asked
        server.shutdown()


@contextlib.contextmanager
def running(command: list, log: Path, health: str, **more: str) -> Iterator[subprocess.Popen]:
    """The command, once `health` answers; killed with its children at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment(**more), stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(health, lambda: process.poll() is None, log)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def mlflow_server(
    directory: Path, store: str | None = None, port: int | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """The address of an `mlflow server` over `store` (default: sqlite in the directory); killed at the end."""
    port = port or free_port()
    if store is None and not (directory / "server.db").exists():
        with_tables(directory / "server.db")
    words = [
        *("server", "-w", "1", "--host", host, "--port", str(port)),
        *("--backend-store-uri", store or f"sqlite:///{directory}/server.db"),
        *("--artifacts-destination", str(directory / "artifacts")),
    ]
    address, log = f"http://{host}:{port}", directory / "server.log"
    process = forked.start_call(_mlflow, words, log)
    try:
        wait_for(f"{address}/health", process.is_alive, log)
        yield address
    finally:
        process.kill()
        process.join()


def _mlflow(words: Sequence[str], log: Path) -> None:
    """`mlflow WORDS`, less the imports of its two interpreters: what it would start as `python -m` runs here."""
    from mlflow import cli, server

    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)

    def run_here(command: Sequence[str], extra_env: dict[str, str], **options: Any) -> None:
        assert list(command[:2]) == [sys.executable, "-m"]
        os.environ.update(extra_env)
        sys.argv = list(command[2:])
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)

    server._exec_cmd = run_here
    cli.cli(words)


class Database:
    """A PostgreSQL that can be stopped and started; `uri` is of an empty database."""

    def __init__(self, directory: Path, binaries: Path) -> None:
        self._directory, self._binaries, self._port = directory, binaries, free_port()
        self.uri = f"postgresql+psycopg://cifar@127.0.0.1:{self._port}/postgres"
        # PostgreSQL refuses to run as root, and its user cannot enter pytest's directories.
        runuser = shutil.which("runuser", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "runuser"
        self._as_user = [runuser, "-u", "postgres", "--"] if getpass.getuser() == "root" else []
        if self._as_user:
            shutil.chown(directory, "postgres")
        self._call("initdb", "-D", directory / "data", "-U", "cifar", "--auth=trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        options = f"-p {self._port} -k {self._directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._control("-o", options, "-l", self._directory / "log", "-w", "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "-w", "stop")

    def _control(self, *words: object) -> None:
        self._call("pg_ctl", "-D", self._directory / "data", *words)

    def _call(self, program: str, *words: object) -> None:
        command = [*self._as_user, str(self._binaries / program), *map(str, words)]
        subprocess.run(command, cwd="/tmp", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@contextlib.contextmanager
def postgresql() -> Iterator[Database]:
    """A running PostgreSQL of its own; skips where PostgreSQL is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(installed[-1]) if installed else None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed")
    directory = Path(tempfile.mkdtemp(prefix="cifar-mlflow-postgresql-", dir="/tmp"))
    try:
        database = Database(directory, Path(initdb).resolve().parent)
        database.start()
        try:
            yield database
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                database.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
