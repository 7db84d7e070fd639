"""The address of the store: MLFLOW_TRACKING_URI, made absolute, or what is wrong with it."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.text import redact

SQLITE = "sqlite:///"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SCHEMES = ("http", "https", "sqlite", *DATABASE_PORTS)


def in_use() -> str:
    """The address of the store in use, absolute: by default MLflow's own, a file in the current directory.

    Raises:
        TrackingError: it is no address that can be tracked to.
    """
    return absolute(os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db")


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None if the store is another one."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def read_only(path: Path) -> sqlite3.Connection:
    """An SQLite database that is looked at, and neither made nor changed."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def absolute(uri: str) -> str:
    """A relative SQLite path would be resolved anew, from another directory, in a child process."""
    setting = f"MLFLOW_TRACKING_URI={redact(uri)}"
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise TrackingError(f"{setting} is no URI ({error}); give for example http://HOST:5000") from None
    scheme = parts.scheme.partition("+")[0]
    if uri in ("sqlite:", "sqlite:/", "sqlite://", SQLITE, f"{SQLITE}:memory:"):
        raise TrackingError(f"{setting} names no file, so all would be forgotten; give for example {SQLITE}mlflow.db")
    if scheme == "sqlite" and not uri.startswith(f"{SQLITE}/"):
        return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}"
    if scheme == "file" or (scheme == "" and not uri.startswith("databricks")):
        raise TrackingError(
            f"{setting} is a directory, which MLflow no longer tracks to; use for example "
            f"sqlite:///{Path(parts.path).absolute()}/mlflow.db"
        )
    if scheme not in SCHEMES:
        raise TrackingError(f"{setting} cannot be tracked to; give a URI that starts with {', '.join(SCHEMES)}")
    return uri


def check_it_is_mlflows(given: str, uri: str, project_run_id: str) -> None:
    """TrackingError if a relative `given` names another file here than in the directory of `mlflow run`."""
    if path := sqlite_file(uri):
        with suppress(sqlite3.Error), closing(read_only(path)) as tables:
            if tables.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (project_run_id,)).fetchone():
                return
    raise TrackingError(
        f"MLFLOW_TRACKING_URI={given} is relative, and `mlflow run` has started this command in another directory, "
        f"{Path.cwd()}, where it is not the database in which MLflow has made the run {project_run_id}; set it to an "
        f"absolute path, such as {SQLITE}$PWD/mlflow.db"
    )
