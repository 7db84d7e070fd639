"""What the driver of a sweep asks of whatever runs its trials: processes of this machine, or actors of a cluster.

The driver alone decides what is run, and what becomes of it. An executor starts no task by itself, repeats none, and
tells of each task that was submitted exactly once how it ended: "done", "failed" or "lost".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

Tell = Callable[[Any], bool]
Task = Callable[[Any, Tell], Any]


@dataclass(frozen=True)
class Event:
    """What a worker said of its task. The driver must `answer` every one of kind "event", once.

    kind: "event" (payload: what the task sent), "done" (payload: its result), "failed" (payload: the reason),
    "lost" (the process is gone; payload: how it ended). `worker` is the executor's own.
    """

    kind: str
    task_id: Any
    payload: Any
    worker: Any


class Executor(Protocol):
    """Workers that live for a whole sweep; one that dies is replaced. Used in a `with`, by one thread.

    A task is a module-level function, or a partial one, of an argument and of `tell`, by which it sends events: `tell`
    returns what the driver answers. At the end of the `with` all workers end: a busy one is interrupted, and has time
    to close what it has open.
    """

    @property
    def idle(self) -> int:
        """The number of workers without a task."""

    def submit(self, task_id: Any, argument: Any) -> None:
        """Gives an idle worker a task. Its outcome comes out of `events`."""

    def events(self, timeout: float) -> Iterator[Event]:
        """What the workers have said, after a wait of at most `timeout` seconds for the first word.

        Raises:
            CifarMlflowError: the workers cannot start.
        """

    def answer(self, event: Event, go_on: bool) -> None:
        """Has the task go on, or end early."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *ending: object) -> None: ...
