"""MLflow's own pages on the store in use."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.directories import writable
from cifar_mlflow.errors import ConfigurationError, TrackingError
from cifar_mlflow.jobs.browsing import server_process
from cifar_mlflow.jobs.browsing.runs import FIRST_RUN
from cifar_mlflow.jobs.listener import say
from cifar_mlflow.text import redact
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import runs
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import ui_views

HOST = "127.0.0.1"  # nobody else's: MLflow's server asks for no password
STARTING = 90.0  # seconds that MLflow's server has to answer
ENDING = 10.0  # seconds that it has to end


@contextmanager
def serving(port: int) -> Iterator[tuple[str, subprocess.Popen[bytes] | None]]:
    """The address of the page to open, and the process of the server, which lives as long as the block.

    The page is the leaderboard of the experiment with the latest run. A store that is a server has pages of its own:
    then no process is started, and `port` is not used.

    Raises:
        ConfigurationError: the port is taken.
        TrackingError: the store cannot be read, or no server came up.
    """
    with process_state.preserved():
        store = tracking_store.connect()
        page = _page(store)
        if store.uri.startswith("http"):
            yield f"{redact(store.uri.rstrip('/'))}/{page}", None
            return
        with _server(store, port) as process:
            yield f"http://{HOST}:{port}/{page}", process


def wait(process: subprocess.Popen[bytes]) -> None:
    """Waits until the server is interrupted. TrackingError: it has ended by itself."""
    code = process.wait()
    raise TrackingError(f"MLflow's server has ended (exit code {code}); what it printed is in {_log()}")


def _log() -> Path:
    return writable("ui") / "server.log"


def _page(store: Store) -> str:
    experiment_ids = list(runs.experiments(store).values())
    order = ["attributes.start_time DESC"]
    latest = store.client.search_runs(experiment_ids, max_results=1, order_by=order) if experiment_ids else []
    if not latest:
        say(f"there is no run yet in {redact(store.uri)}; this makes one: {FIRST_RUN}")
        return ""
    return ui_views.latest_leaderboard(store, latest[0].info.experiment_id)


@contextmanager
def _server(store: Store, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the port of a server that has just ended
        try:
            probe.bind((HOST, port))
        except OSError as error:
            told = f"--port: {port} cannot be had on {HOST} ({error.strerror}); give another"
            raise ConfigurationError(told, "options") from None
    command = [sys.executable, "-m", server_process.__name__, "server", "--backend-store-uri", store.uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    log = _log()
    say(f"starting MLflow's server on {redact(store.uri)}")
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # a dozen processes for nothing here
    environment.pop("MLFLOW_TRACKING_URI", None)
    with log.open("wb") as output:
        # In a session of its own, so that all of its processes can be ended together.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    with process:
        try:
            _wait_until_it_answers(process, port, log)
            yield process
        finally:
            _end(process)


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    raise TrackingError(f"MLflow's server did not come up on port {port}; what it printed is in {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    end_all = getattr(os, "killpg", None)  # which Windows has not
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(ProcessLookupError):
            end_all(process.pid, number) if end_all else process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING)
