"""The connection to a Ray cluster: address, token and versions first, each fault of which is one message.

Ray's own words go to a log file, and this package travels with the connection.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cifar_mlflow
from cifar_mlflow import process_state
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError
from cifar_mlflow.text import first_line, shown

CONNECT_TIMEOUT = 5.0  # seconds for the address to be reached at all
TRIES = "6"  # of about a second each, that Ray has to reach the cluster
CODE_LIMIT = 100 * 2**20  # bytes: Ray takes 512 MiB, and code that large is a mistake
NOT_CODE = ["**/__pycache__/**", "**/*.pyc"]
SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_NUM_REDIS_GET_RETRIES": TRIES}
# What a worker needs to reach the store: never part of the runtime_env, which Ray writes into its logs.
CARRIED = ("MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "CIFAR_MLFLOW_")
NOT_CARRIED = ("MLFLOW_RUN_ID",)
NO_TOKEN = (
    "Ray without a token lets everybody in reach run commands on its nodes: make one by `ray get-auth-token "
    "--generate`, give it to every node, and start them with RAY_AUTH_MODE=token"
)


class Cluster:
    """A cluster that has let this process in. `close` leaves it."""

    def __init__(self, address: str, log: Path, code: Mapping[str, bytes]) -> None:
        """Connects to the cluster at `address` (HOST:PORT, or auto); see `connect`."""
        self._ending, self._log = ExitStack(), log
        self._ending.callback(self._leave)
        try:
            with _signals_kept(), _errors_to(log):
                self._enter(address, code)
        except BaseException:
            self.close()
            raise

    def _enter(self, address: str, code: Mapping[str, bytes]) -> None:
        _checked_code_size(code)
        # The workers stand in it: a network of one's own is looked for in the current directory. Without one, Ray has
        # them import from the path of this process's own, where their machine may have another state of the package.
        directory = self._ending.enter_context(tempfile.TemporaryDirectory(prefix="cifar-mlflow-code-"))
        for name, content in code.items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        package = str(Path(cifar_mlflow.__file__).parent)
        environment = {"working_dir": directory, "py_modules": [package], "excludes": NOT_CODE}
        _log_to(self._log, self._ending)
        before = self._log.stat().st_size
        import ray

        try:
            ray.init(address, runtime_env=environment, log_to_driver=False, configure_logging=False)
        except Exception as error:
            said = self._log.read_bytes()[before:].decode(errors="replace")
            raise _in_our_words(address, error, said) from error

    def resources(self) -> tuple[float, float]:
        """CPUs and GPUs that are free now."""
        import ray

        free = ray.available_resources()
        return float(free.get("CPU", 0)), float(free.get("GPU", 0))

    def close(self) -> None:
        self._ending.close()

    def _leave(self) -> None:
        import ray

        with _signals_kept(), _errors_to(self._log):
            ray.shutdown()


def connect(address: str | None, log: Path, code: Mapping[str, bytes]) -> Cluster:
    """The Ray cluster at `address` (default: $RAY_ADDRESS, else the one that this machine is a node of).

    `code` are files of the user's own, by their path: on the workers they are in the current directory.

    Raises:
        ConfigurationError: Ray is not installed, there is no token, or the address is none.
        CifarMlflowError: no cluster answers there, it refuses the token, or has another version of Ray or Python.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError("--executor: ray is not installed; pip install 'cifar-mlflow[ray]'", "options")
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if address != "auto" and not re.fullmatch(r"[\w.-]+:\d+|\[[0-9A-Fa-f:]+\]:\d+", address):
        instead = "give HOST:PORT, as `ray start --head` prints it, and start the sweep on a node of the cluster"
        raise ConfigurationError(f"--ray-address: {shown(address)} is refused; {instead}", "options")
    _check_token()
    for name, value in SETTINGS.items():
        process_state.set_variable(name, value)
    if address != "auto":
        _check_reached(address)
    import ray

    if ray.is_initialized():
        raise ConfigurationError("this process uses Ray already; call ray.shutdown() first", "environment")
    log.touch(0o600)
    return Cluster(address, log, code)


def carried() -> dict[str, str]:
    """The variables of this process by which a worker reaches the store, finds the data, and keeps its state."""
    return {name: value for name, value in os.environ.items() if name.startswith(CARRIED) and name not in NOT_CARRIED}


def _check_token() -> None:
    """Ray of its own only warns when there is none."""
    if (mode := os.environ.get("RAY_AUTH_MODE", "token").lower()) != "token":
        raise ConfigurationError(f"RAY_AUTH_MODE={mode} is refused. {NO_TOKEN}", "environment")
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given).expanduser() if given else Path.home() / ".ray" / "auth_token"
    try:
        found = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        found, why = "", error.strerror or str(error)
    else:
        why = "it is empty"
    if not found:
        raise ConfigurationError(f"there is no token in RAY_AUTH_TOKEN or {path} ({why}). {NO_TOKEN}", "environment")


def _check_reached(address: str) -> None:
    """Ray of its own would try for half a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise CifarMlflowError(
            f"no Ray cluster answers at {address} ({error}); start one (`ray start --head`), or correct --ray-address"
        ) from None


def _checked_code_size(code: Mapping[str, bytes]) -> None:
    package = sum(path.stat().st_size for path in Path(cifar_mlflow.__file__).parent.rglob("*") if path.is_file())
    if (size := package + sum(map(len, code.values()))) > CODE_LIMIT:
        raise ConfigurationError(
            f"the code that would travel to the workers has {size / 2**20:.0f} MiB, of {CODE_LIMIT / 2**20:.0f} at "
            "most; move what is no code out of the packages",
            "environment",
        )


def _in_our_words(address: str, error: Exception, said: str) -> CifarMlflowError:
    """What Ray has raised, and `said` in its log, as one message."""
    where = "" if address == "auto" else f" at {address}"
    text = str(error)
    if "InvalidAuthToken" in said + text or type(error).__name__ == "AuthenticationError":
        told = "correct RAY_AUTH_TOKEN, or the file that RAY_AUTH_TOKEN_PATH names (default: ~/.ray/auth_token)"
        return CifarMlflowError(f"the Ray cluster{where} refuses the token; {told}")
    if versions := re.findall(r"Ray: (\S+)\s+Python: (\S+)", text):
        (there, python), here = versions[0], versions[-1]
        return CifarMlflowError(
            f"the Ray cluster{where} has Ray {there} and Python {python}, this process Ray {here[0]} and Python "
            f"{here[1]}; install the same on all nodes, to the patch"
        )
    if isinstance(error, ConnectionError):
        return CifarMlflowError(
            f"no Ray cluster answers{where or ' on this machine'}; start one (`ray start --head`), or give "
            "--ray-address HOST:PORT on a node of the cluster"
        )
    return CifarMlflowError(f"the Ray cluster{where} cannot be used from here ({first_line(error)})")


def _log_to(path: Path, after: ExitStack) -> None:
    """Has what Ray tells by Python's logging go to the file."""
    logger = logging.getLogger("ray")
    handler, others, on, level = logging.FileHandler(path), list(logger.handlers), logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)

    def undo() -> None:
        logger.handlers, logger.propagate = others, on
        logger.setLevel(level)
        handler.close()

    after.callback(undo)


@contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """Has what Ray's C++ writes to standard error go to the file."""
    kept = os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(log)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in the place of ours."""
    try:
        before = signal.getsignal(signal.SIGTERM)
        yield
        if signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)
    except ValueError:  # in another thread than the main one, nobody sets any
        yield
