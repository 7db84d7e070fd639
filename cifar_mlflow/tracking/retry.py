"""Several processes that write to one store get in each other's way now and then; the one that lost tries again."""

from __future__ import annotations

import functools
import random
import time
from typing import Any

PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds, on average, before each further attempt
# SQLite is locked for longer than MLflow waits; or two processes have inserted the same row, as a dataset's.
_random = random.SystemRandom()  # the caller's own draws stay what they are
TRANSIENT = ("database is locked", "UNIQUE constraint failed", "duplicate key value violates unique constraint")


class PatientClient:
    """An MlflowClient whose calls are repeated if another process was in the way. Their transactions were undone."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        return patiently(attribute) if callable(attribute) else attribute


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
                # A name that is taken stays taken.
                taken = getattr(error, "error_code", None) == "RESOURCE_ALREADY_EXISTS"
                if taken or not any(text in str(error) for text in TRANSIENT):
                    raise
                time.sleep(pause * _random.uniform(0.5, 1.5))
        return call(*arguments, **options)

    return repeated
