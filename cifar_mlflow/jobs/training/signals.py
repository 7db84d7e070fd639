"""What a signal that asks for an end does: it interrupts once, and never where something would be left half done."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

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
