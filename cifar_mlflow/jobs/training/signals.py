"""What a signal that asks for an end does: it interrupts once, and never where something would be left half done."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from cifar_mlflow.errors import Interrupted

# A terminal that is closed sends SIGHUP, where there is one.
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
ASKED = (
    b"\nstopping: what was reached is being kept. Ctrl-C once more ends this at once, and may leave a run RUNNING, "
    b"which `cifar-mlflow doctor --fix` closes\n"
)


def interrupt_at_signals() -> None:
    """Has the first signal raise Interrupted in the main thread; a second Ctrl-C then asks, and a third ends."""
    for number in STOPPING:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has SIGHUP ignored
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # The wrap-up that follows must not be cut in two, by a shell that sends the same again, or by MLflow's SIGTERM.
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _ask)
    raise Interrupted(number)


def _ask(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with suppress(OSError):
        os.write(2, ASKED)  # not through a stream that may be in the middle of a line


GRACE = 5.0  # seconds that a training has to come to the end of its step, and to write a checkpoint


class Stop:
    """A SIGTERM that waits for a moment between two steps of a training: then it is `asked` for, until `now`."""

    def __init__(self) -> None:
        self.asked = False
        self._on_asked: Callable[[], object] = lambda: None
        self._before: Any = None
        self._timer = threading.Timer(GRACE, os.kill, (os.getpid(), signal.SIGTERM))
        self._timer.daemon = True

    @contextmanager
    def between_steps(self, on_asked: Callable[[], object]) -> Iterator[None]:
        """Within the block, has a SIGTERM that would interrupt wait; `on_asked` is called when it has come."""
        self._on_asked, self._before = on_asked, signal.getsignal(signal.SIGTERM)
        # A signal that is ignored stays so, and one that ends the process at once, as in a program of the caller's own.
        if threading.current_thread() is not threading.main_thread() or not callable(self._before):
            yield
            return
        signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGTERM) == self._ask:
                signal.signal(signal.SIGTERM, self._before)
            self.now()

    def now(self) -> None:
        """Has the signal take effect, if one has come."""
        self._timer.cancel()
        if self.asked:
            self.asked = False
            signal.signal(signal.SIGTERM, self._before)
            signal.raise_signal(signal.SIGTERM)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:  # nothing has come of it for `GRACE` seconds, or it was sent twice
            self.now()
        self.asked = True
        self._on_asked()
        self._timer.start()


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that ask for an end take effect when the block is left (in the main thread; see `signal`).

    In a block that hangs, a second Ctrl-C asks and a third ends, as after an interruption.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if held.count(signal.SIGINT) > 1:
            _ask(number, frame)

    ignored = [number for number in STOPPING if signal.getsignal(number) == signal.SIG_IGN]
    before = {number: signal.signal(number, hold) for number in STOPPING if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if held:
            signal.raise_signal(held[0])
