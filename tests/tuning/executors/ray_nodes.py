"""A Ray cluster of two nodes on this machine; the second, where root may, has a network and processes of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from servers import free_port

RAY = Path(sys.executable).parent / "ray"
STORE = "100000000"  # bytes of shared memory
NUMBERS = itertools.count()  # of the clusters of this process


class Node:
    """One node, whose processes are known by the directory of their own in their environment."""

    def __init__(
        self, directory: Path, inside: list[str], python: Path, words: list[object], environment: dict[str, str]
    ) -> None:
        """`inside` is the command that it is started by, and `python` the interpreter that has Ray."""
        directory.mkdir()
        self.directory, self._words = directory, words
        self._ray = [*inside, str(python), "-m", "ray.scripts.scripts"]
        self._environment = {
            **environment,
            "CIFAR_MLFLOW_STATE": str(directory / "state"),
            "RAY_NODE_OF_TEST": str(directory),
        }
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        log = self.directory / "ray.log"
        command = [*self._ray, "start", *map(str, self._words)]
        command += ["--block", "--num-cpus=2", f"--object-store-memory={STORE}"]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        """Those of Ray overwrite their environment with a title, and are known by their parents."""
        below = []
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(self.process.pid).children(recursive=True) if self.process else []
        return list(dict.fromkeys([*below, *filter(self._is_here, psutil.process_iter())]))

    def _is_here(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.environ().get("RAY_NODE_OF_TEST") == str(self.directory)
        return False

    def kill(self) -> None:
        """As if its plug were pulled."""
        for each in self.processes():
            with contextlib.suppress(psutil.Error):
                each.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def seen(self, path: Path) -> Path:
        """What the processes of the node see under the path, as a path of this process."""
        assert self.process
        return Path(f"/proc/{self.process.pid}/root{path}")

    def workers(self) -> list[psutil.Process]:
        """The processes that train: forked from one whose parent is an actor."""
        forked = [each for each in self.processes() if "forkserver" in _command(each)]
        return [each for each in forked if psutil.pid_exists(each.pid) and each.ppid() in {one.pid for one in forked}]

    def actors(self) -> list[psutil.Process]:
        """The processes that speak for them."""
        return [each for each in self.processes() if "ray::RayWorker" in _command(each)]


class Cluster:
    """The nodes, and what a driver needs to reach them."""

    def __init__(self, directory: Path, python: Path, variables: dict[str, str]) -> None:
        """The second node has the environment of the interpreter `python`; both have the `variables` besides."""
        port, self.token = free_port(), secrets.token_hex(32)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            **variables,
        }
        kept = {
            name: os.environ[name] for name in ("HOME", "LANG", "XDG_CACHE_HOME", "MPLCONFIGDIR") if name in os.environ
        }
        # The package is on no node's path: it has to travel.
        kept |= {"RAY_memory_monitor_refresh_ms": "0"}  # others have the memory of this machine too
        kept |= {"PATH": f"{RAY.parent}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
        kept |= self.environment
        self.directory = directory
        self.hidden = directory / "hidden"  # what is in it, the second node does not see
        self.hidden.mkdir()
        self.cache = self.hidden / "cache"
        kept["XDG_CACHE_HOME"] = str(self.cache)
        number = next(NUMBERS)
        self._namespace = f"ray{os.getpid()}-{number}" if may_divide() else None
        net = f"10.{64 + os.getpid() % 60}.{(os.getpid() // 60 + number) % 250}"
        host, other, inside = ("127.0.0.1", "127.0.0.1", [])
        if self._namespace:
            host, other = f"{net}.1", f"{net}.2"
            self.link = f"v{os.getpid()}-{number}"
            peer = f"w{os.getpid()}-{number}"
            _ip("netns", "add", self._namespace)
            _ip("link", "add", self.link, "type", "veth", "peer", "name", peer, "netns", self._namespace)
            _ip("addr", "add", f"{host}/24", "dev", self.link)
            _ip("link", "set", self.link, "up")
            _ip("-n", self._namespace, "addr", "add", f"{other}/24", "dev", peer)
            _ip("-n", self._namespace, "link", "set", peer, "up")
            _ip("-n", self._namespace, "link", "set", "lo", "up")
            inside = [
                "ip",
                "netns",
                "exec",
                self._namespace,
                "unshare",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                *("sh", "-c", f'mount -t tmpfs none {self.hidden} && exec "$@"', "sh"),
            ]
        self.host, self.address = host, f"{host}:{port}"
        self.hosts = (host, other)
        self.nodes: list[Node] = []
        try:
            words = ["--head", f"--port={port}", f"--node-ip-address={host}", "--include-dashboard=false"]
            words += [f"--temp-dir={directory}/ray"]
            self.nodes.append(Node(directory / "head", [], Path(sys.executable), words, kept))
            words = [f"--address={self.address}", f"--node-ip-address={other}"]
            self.nodes.append(Node(directory / "second", inside, python, words, kept))
        except BaseException:
            self.close()
            raise

    @property
    def is_divided(self) -> bool:
        """Whether the second node is a machine of its own, as far as its processes can see."""
        return self._namespace is not None

    def cut(self, yes: bool = True) -> None:
        """Takes the second node off the network, or back to it."""
        _ip("link", "set", self.link, "down" if yes else "up")

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.kill()
        if self._namespace:
            _ip("netns", "del", self._namespace)
            subprocess.run(["ip", "link", "del", self.link], stderr=subprocess.DEVNULL, check=False)

    def logs(self) -> str:
        """Everything that Ray has written of this cluster."""
        return "\n".join(
            path.read_text(errors="replace") for path in (self.directory / "ray").rglob("*.*") if _is_log(path)
        )


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""  # it has just ended


def _is_log(path: Path) -> bool:
    return path.is_file() and path.suffix in (".log", ".out", ".err")


def may_divide() -> bool:
    return os.getuid() == 0 and all(map(shutil.which, ("ip", "unshare")))


@contextlib.contextmanager
def two_namespaces(names: list[str], addresses: list[str]) -> Iterator[None]:
    """Two networks with an address each, that reach one another."""
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", names[0], "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "v0")
            _ip("-n", name, "link", "set", "v0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def cluster(python: Path = Path(sys.executable), **variables: str) -> Iterator[Cluster]:
    """A running cluster of its own, whose second node is started by `python`; skips where Ray is not installed."""
    if importlib.util.find_spec("ray") is None or not RAY.exists():
        pytest.skip("Ray is not installed: pip install 'cifar-mlflow[ray]'")
    directory = Path(
        tempfile.mkdtemp(prefix="cm-ray-", dir="/tmp")
    )  # Ray's sockets lie there, whose paths must be short
    nodes = None
    try:
        nodes = Cluster(directory, python, variables)
        yield nodes
    finally:
        if nodes:
            nodes.close()
        shutil.rmtree(directory, ignore_errors=True)
