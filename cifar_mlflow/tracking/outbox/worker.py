"""The thread that takes a run's writes to the tracking store, so that no training ever waits for it."""

from __future__ import annotations

import threading
import time

from cifar_mlflow import process_state
from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox.delivery import Delivery, Refused
from cifar_mlflow.tracking.outbox.log import Spool
from cifar_mlflow.tracking.store import Store

PAUSES = (0.5, 1.0, 2.0, 5.0)  # seconds before the next try, when the store cannot be reached; the last again and again
TIMEOUT = 10  # seconds of silence after which a request is given up


class Courier:
    """Delivers a spool's records while they are being written.

    `refusal` is the store's answer to a write that it will never take, `trouble` why it cannot be reached now; both are
    None if all is well.
    """

    def __init__(self, store: Store, spool: Spool) -> None:
        # One try at a time, and a short one: what fails is tried again from here, without blocking for minutes.
        process_state.set_variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        process_state.set_variable("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT))
        self.refusal: str | None = None
        self.trouble: str | None = None
        self._spool = spool
        self._delivery = Delivery(store, spool)
        self._changed = threading.Condition()
        self._closing = False
        # A thread that hangs in a request must not keep the process alive: the spool has everything.
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to deliver."""
        with self._changed:
            self._changed.notify_all()

    def drain(self, patience: float) -> int:
        """Waits until all is delivered, or nothing was for `patience` seconds; returns the number of writes waiting."""
        waiting, since = self._spool.waiting, time.monotonic()
        while self._spool.waiting and self._thread.is_alive():
            with self._changed:
                self._changed.wait(0.2)
            if self._spool.waiting != waiting:
                waiting, since = self._spool.waiting, time.monotonic()
            elif time.monotonic() - since > patience:
                break
        return self._spool.waiting

    def stop(self) -> None:
        """Ends the thread, unless it hangs in a request."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)

    def _work(self) -> None:
        failures = 0
        while True:
            with self._changed:
                while not self._spool.waiting and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
            record = self._spool.pending()[0]
            try:
                self._delivery.deliver(record)
            except Refused as error:
                self.refusal = self.refusal or str(error)
            except Exception as error:  # whatever a broken server makes of MLflow's client, it is tried again
                self.trouble = str(error) if isinstance(error, TrackingError) else f"{type(error).__name__}: {error}"
                with self._changed:
                    self._changed.wait(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
                continue
            failures, self.trouble = 0, None
            self._spool.mark_delivered(record.number)
            self.wake()
