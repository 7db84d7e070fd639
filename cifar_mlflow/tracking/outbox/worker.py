"""The thread that takes a run's writes to the tracking store, so that no training ever waits for it.

It sets no time-outs: those of `MLFLOW_HTTP_REQUEST_TIMEOUT` and `MLFLOW_HTTP_REQUEST_MAX_RETRIES` are the user's, or
those with which the store was connected.
"""

import queue
import threading
import time
from contextlib import suppress

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.outbox.delivery import Delivery
from cifar_mlflow.tracking.outbox.log import Outbox
from cifar_mlflow.tracking.outbox.state import size_of
from cifar_mlflow.tracking.store import Store

PAUSES = (0.5, 1.0, 2.0, 5.0)  # seconds before the next try, when the store cannot be reached; the last again and again
SLOWEST = 50_000.0  # bytes a second; an upload that takes longer is no longer waited for
SILENCE = 3.0  # seconds without an answer after which it is said that writes are waiting


class DeliveryWorker:
    """Delivers an outbox's records while they are being written, and closes the outbox at its end.

    `refusal` is the store's answer to a write that it will never take; None if there was none.
    """

    def __init__(self, store: Store, outbox: Outbox) -> None:
        self.refusal: str | None = None
        self._failure: str | None = None
        self._outbox = outbox
        self._delivery = Delivery(store, outbox)
        # When the try in progress was begun, and the bytes of its files.
        self._trying: tuple[float, int] | None = None
        # Written in C: a signal's exception cannot leave its lock taken, as it can that of a Condition or an Event.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closing = False
        # A thread that hangs in a request must not keep the process alive: the outbox has everything.
        self._thread = threading.Thread(target=self._work, name="delivery", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why the store cannot be reached at the moment; None if it can."""
        trying = self._trying
        if self._failure is None and trying and time.monotonic() - trying[0] > SILENCE + trying[1] / SLOWEST:
            return f"no answer for {time.monotonic() - trying[0]:.0f} s"
        return self._failure

    def wake(self) -> None:
        """There is something to deliver."""
        self._wakes.put(None)

    def close(self, patience: float) -> int:
        """Waits until all has arrived, or nothing did for `patience` seconds; returns how many writes have not.

        An upload that is under way counts for as long as it may take at `SLOWEST`. A thread that still hangs in a
        request keeps the outbox to itself until that ends, so that no other process sends the same a second time.
        """
        try:
            self._drain(patience)
            left = self._outbox.waiting
        finally:
            self._closing = True
            self.wake()
        self._thread.join(timeout=1.0)
        return left if self._thread.is_alive() else self._outbox.waiting

    def _drain(self, patience: float) -> None:
        pending, since = self._outbox.pending, time.monotonic()
        while pending and self._thread.is_alive():
            time.sleep(0.05)
            left, now, trying = self._outbox.pending, time.monotonic(), self._trying
            if left != pending:
                pending, since = left, now
            upload = trying[0] + trying[1] / SLOWEST if trying and trying[1] else since
            if now - max(since, upload) > patience:
                break

    def _work(self) -> None:
        failures = 0
        while not self._closing:
            try:
                record = self._delivery.next()
                if record is None:
                    self._wakes.get()
                    continue
                self._trying = time.monotonic(), size_of(self._outbox.payload(record.number))
                refusal = self._delivery.deliver(record)
            except Exception as error:  # whatever a broken server makes of MLflow's client, it is tried again
                self._failure = str(error) if isinstance(error, TrackingError) else f"{type(error).__name__}: {error}"
                self._trying = None
                self._pause(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
            else:
                failures, self._failure, self._trying = 0, None, None
                self.refusal = self.refusal or refusal
        with suppress(OSError):  # then it is delivered once more
            self._delivery.mark()
        self._outbox.close()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._closing and (left := until - time.monotonic()) > 0:
            with suppress(queue.Empty):
                self._wakes.get(timeout=left)
