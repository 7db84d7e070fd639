"""Several processes that write to one store get in each other's way now and then; the one that lost tries again."""

import functools
import random
import sqlite3
import time
from collections.abc import Iterable
from contextlib import ContextDecorator
from typing import Any

from cifar_mlflow.errors import causes

PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds, on average, before each further attempt
# Two processes have inserted the same row: as PostgreSQL, SQLite, and the database of a server tell it.
UNIQUE_VIOLATION = "23505"
SAME_ROW = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
SAME_ROW_OF_A_SERVER = ("UNIQUE constraint failed", "duplicate key value violates unique constraint")

_random = random.SystemRandom()  # the caller's own draws stay what they are


class PatientClient:
    """An MlflowClient whose calls are repeated if another process was in the way. Their transactions were undone.

    What they raise in the end is translated by `translated`, a context manager that decorates each call.
    """

    def __init__(self, client: Any, translated: ContextDecorator) -> None:
        self._client, self._translated = client, translated

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        return self._translated(patiently(attribute)) if callable(attribute) else attribute


def patiently(call: Any) -> Any:
    """The function, repeated if another process was in the way."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    @functools.wraps(call)
    def repeated(*arguments: Any, **options: Any) -> Any:
        for pause in PAUSES:
            try:
                return call(*arguments, **options)
            except (MlflowException, SQLAlchemyError) as error:
                if not _is_transient(error):
                    raise
                time.sleep(pause * _random.uniform(0.5, 1.5))
        return call(*arguments, **options)

    return repeated


def _is_transient(error: Exception) -> bool:
    """Whether SQLite was locked for longer than MLflow waits, or two processes have inserted the same row."""
    if is_verdict(error):
        # What a server's database has met is told in words: BAD_REQUEST is the code of many things.
        is_bad_request = getattr(error, "error_code", None) == "BAD_REQUEST"
        return is_bad_request and any(words in str(error) for words in SAME_ROW_OF_A_SERVER)
    found = list(causes(error))
    states = {getattr(each, name, None) for each in found for name in ("sqlstate", "pgcode")}
    code = sqlite_code(found)
    return UNIQUE_VIOLATION in states or code in SAME_ROW or code & 0xFF == sqlite3.SQLITE_BUSY


def is_verdict(error: Exception) -> bool:
    """Whether the error is what MLflow says of what was asked; else it passes on what it has met."""
    from mlflow.exceptions import MlflowException, RestException

    if not isinstance(error, MlflowException) or str(error).startswith("API request to"):  # no MLflow has answered
        return False
    passed_on = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "BAD_REQUEST")
    return isinstance(error, RestException) or error.error_code not in passed_on


def sqlite_code(found: Iterable[BaseException]) -> int:
    """SQLite's extended code of the first of the errors that has one, else 0."""
    return next((int(each.sqlite_errorcode) for each in found if hasattr(each, "sqlite_errorcode")), sqlite3.SQLITE_OK)
