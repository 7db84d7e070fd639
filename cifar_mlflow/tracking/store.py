"""Where runs are tracked: found, checked once, and initialized by one process at a time."""

import hashlib
import logging
import os
import socket
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from cifar_mlflow import process_state
from cifar_mlflow.directories import no_room
from cifar_mlflow.errors import ConfigurationError, TrackingError, causes
from cifar_mlflow.text import first_line, shown
from cifar_mlflow.text import redact as redact
from cifar_mlflow.tracking import access, uris
from cifar_mlflow.tracking.retry import PatientClient, is_verdict, sqlite_code

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel as LoggedModel
    from mlflow.entities import Run as Run
    from mlflow.entities.model_registry import ModelVersion as ModelVersion
    from mlflow.entities.model_registry import RegisteredModel as RegisteredModel
else:  # importing MLflow takes more than a second, and annotations alone need these
    LoggedModel = MlflowClient = ModelVersion = RegisteredModel = Run = Any

CHECK_TIMEOUT = 5  # seconds that a server has to answer before anything starts
NOT_WRITABLE = (
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM,
)  # fmt: skip


@dataclass(frozen=True)
class Store:
    """A tracking store that answered. `uri` is absolute; `project_run_id` is the run that `mlflow run` created.

    Every call of `client` raises TrackingError if the store refuses it or does not answer.
    """

    client: MlflowClient
    uri: str
    project_run_id: str | None

    def experiment_id(self, name: str, otherwise: str = "name another experiment") -> str:
        """The id of the experiment `name`, created if it is new; TrackingError if it was deleted or is refused.

        `otherwise` is what can be done if it is not to be restored.
        """
        experiment = self.client.get_experiment_by_name(name)
        try:
            if experiment is None:
                return str(self.client.create_experiment(name))
        except TrackingError:
            # Another process may have created it between the two calls.
            if (experiment := self.client.get_experiment_by_name(name)) is None:
                raise
        if experiment.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the experiment {name!r} was deleted; restore it with "
                f"`mlflow experiments restore -x {experiment.experiment_id}`, or {otherwise}"
            )
        return str(experiment.experiment_id)

    def run_url(self, experiment_id: str, run_id: str) -> str | None:
        """The run's page in MLflow's UI, if the store is a server."""
        page = f"/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
        return redact(self.uri.rstrip("/")) + page if self.uri.startswith("http") else None


def connect() -> Store:
    """The store at MLFLOW_TRACKING_URI, or MLflow's own default in the current directory, once it has answered.

    Raises:
        TrackingError: no server answers, the store is from another version of MLflow or cannot be written.
        ConfigurationError: a variable of MLflow's has a value that it cannot have.
    """
    # A dead server would otherwise block one call for four minutes.
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    # MLflow would print the server's address at the end of a run, password included.
    settings |= {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    for name, value in settings.items():
        if name not in os.environ:
            process_state.set_variable(name, value)
        elif value.isdigit() and not os.environ[name].isdigit():
            raise ConfigurationError(f"{name}={shown(os.environ[name])} is no whole number", "environment")
    given, project_run_id = os.environ.get("MLFLOW_TRACKING_URI"), os.environ.get("MLFLOW_RUN_ID") or None
    uri = uris.in_use()
    if project_run_id and given and uri != given:
        uris.check_it_is_mlflows(given, uri, project_run_id)
    with warnings.catch_warnings():
        # So tqdm greets a notebook without ipywidgets, when MLflow imports it.
        warnings.filterwarnings("ignore", message="IProgress not found")
        import mlflow

    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.artifact.artifact_repo"):
        process_state.set_level(noisy, logging.WARNING)
    # For what MLflow looks up by itself, as models by their URI, and for processes that are started.
    process_state.set_variable("MLFLOW_TRACKING_URI", uri)
    if (other := mlflow.get_tracking_uri()) != uri:  # the caller has set it by `mlflow.set_tracking_uri`
        mlflow.set_tracking_uri(uri)
        process_state.at_end(lambda: mlflow.set_tracking_uri(other))
    file = uris.sqlite_file(uri)
    lock = _lock(uri) if file else nullcontext()
    with lock, _short_timeouts(), translated_errors(uri):
        if file:
            _check_sqlite(file)
        _check_database_server(uri)
        client = mlflow.MlflowClient(uri)
        client.search_experiments(max_results=1)
    patient = cast("MlflowClient", PatientClient(client, translated_errors(uri)))
    return Store(patient, uri, project_run_id)


def active_run(store: Store) -> Run | None:
    """The run that the caller has begun in this store by `mlflow.start_run()`, in this thread."""
    import mlflow

    active = None if store.project_run_id else mlflow.active_run()
    try:
        return store.client.get_run(active.info.run_id) if active else None
    except TrackingError:
        return None  # it is in another store


def environment_experiment(store: Store | None) -> str | None:
    """The experiment of the caller's active run, or that which MLflow's variables name; by its id only in a store."""
    if store and (parent := active_run(store)):
        return str(store.client.get_experiment(parent.info.experiment_id).name)
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return name
    if store and (experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return str(store.client.get_experiment(experiment_id).name)
    return None


@contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Turns what MLflow, the network and the database raise into a TrackingError that says what to do."""
    try:
        yield
    except Exception as error:
        from alembic.util import CommandError  # which takes long, and is seldom needed
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        # The errors of requests are OSErrors; a ValueError may be about one of MLflow's variables.
        known = (MlflowException, SQLAlchemyError, CommandError, sqlite3.Error, OSError, ImportError)
        if not isinstance(error, known) and not (isinstance(error, ValueError) and "MLFLOW_" in str(error)):
            raise
        raise TrackingError(redact(_explain(uri, error))) from error


def _explain(uri: str, error: Exception) -> str:
    from alembic.util import CommandError

    short, found = first_line(error), list(causes(error))
    if refusals := {401, 403}.intersection(map(_http_status, found)):
        return f"{uri} refuses access ({short}); {access.remedy(uri, min(refusals), short)}"
    if missing := next((each for each in found if isinstance(each, ImportError)), None):
        return f"{uri} needs a package for its database or its artifacts that is not here ({missing}); install it"
    if is_verdict(error):
        return f"{uri}: {short}"
    if "out-of-date database schema" in short:  # MLflow has no code for it
        return (
            f"{uri} was written by another version of MLflow ({short}). If it is older, `mlflow db upgrade {uri}` "
            "brings it up to date (make a copy first); if it is newer, install that version of MLflow"
        )
    if "Can't locate revision identified by 'v" in short:  # MLflow's own are hexadecimal
        return f"{uri} has the tables of Optuna in it; give MLflow a database of its own, by MLFLOW_TRACKING_URI"
    if any(isinstance(each, CommandError) for each in found):
        return f"{uri} was written by a newer version of MLflow than is installed here; install that version ({short})"
    if _is_of_the_network(found):
        reason = getattr(found[-1], "strerror", None) or first_line(found[-1])
        return (
            f"no MLflow server answers at {uri} ({reason}). {access.token_hint(uri, reason)}Start one (`mlflow "
            "server`), correct MLFLOW_TRACKING_URI, unset it to track in ./mlflow.db, or train with --offline and "
            "`cifar-mlflow sync` later"
        )
    file = uris.sqlite_file(uri)
    if full := no_room(error, {file.parent: ""} if file else {}):
        return f"{uri}: {full}"
    code = sqlite_code(found) & 0xFF  # without what SQLite adds to it
    if code in NOT_WRITABLE or any(isinstance(each, OSError) and each.errno for each in found):
        return f"{uri} cannot be written ({short}); go to a directory that you may write to, or set MLFLOW_TRACKING_URI"
    told = {
        sqlite3.SQLITE_NOTADB: " is not an SQLite database; move the file away or set MLFLOW_TRACKING_URI",
        sqlite3.SQLITE_BUSY: " is locked by another process; wait for it to end, or use a server (`mlflow server`)",
    }
    return uri + told.get(code, f": {short}")


def _http_status(error: BaseException) -> int | None:
    """The status with which a server has answered, as MLflow or requests keeps it."""
    told = getattr(error, "get_http_status_code", None)
    return told() if told else getattr(getattr(error, "response", None), "status_code", None)


def _is_of_the_network(found: Sequence[BaseException]) -> bool:
    from requests import exceptions

    kinds = (exceptions.ConnectionError, exceptions.Timeout, exceptions.RetryError, exceptions.ChunkedEncodingError)
    if any(isinstance(each, (*kinds, ConnectionError, TimeoutError, socket.gaierror)) for each in found):
        return True
    # Of what answers, but not as MLflow does, of one of several files, and of a database without a connection, MLflow
    # and the driver tell in words alone.
    words = ("API request to", "Max retries exceeded", "Connection refused", "timed out")
    return not isinstance(found[0], OSError) and any(each in str(found[0]) for each in words)


def _check_sqlite(path: Path) -> None:
    """MLflow would try for 100 seconds to open a file that cannot be opened."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=CHECK_TIMEOUT)) as database:
        database.execute("PRAGMA schema_version").fetchone()  # creates the file, or reads its first page


def _check_database_server(uri: str) -> None:
    """MLflow would also try for 100 seconds to reach a database that is down."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme not in uris.DATABASE_PORTS:
        return
    try:
        if parts.hostname:  # else it is a socket of this machine
            socket.create_connection((parts.hostname, parts.port or uris.DATABASE_PORTS[scheme]), CHECK_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise TrackingError(
            f"no database server answers at {redact(uri)} ({error}); start it or correct MLFLOW_TRACKING_URI"
        ) from None
    import sqlalchemy

    sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool).connect().close()


def _lock(uri: str) -> AbstractContextManager[object]:
    """A fresh SQLite store that several processes initialize at once is left broken; let one go first."""
    from filelock import FileLock

    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    # Windows has no such number, and gives each user a directory of their own.
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return FileLock(Path(tempfile.gettempdir()) / f"cifar-mlflow-{user}-{name}.lock")


@contextmanager
def _short_timeouts() -> Iterator[None]:
    names = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(CHECK_TIMEOUT)}
    before = {name: os.environ[name] for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        os.environ.update(before)
