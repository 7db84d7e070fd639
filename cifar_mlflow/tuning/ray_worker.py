"""What runs on a node of a Ray cluster: an actor that has one worker process, and passes on what that says.

The process is the same as on the driver's own machine. It ends itself, with its run closed, when the actor is gone, and
so does Ray with the actor when the driver is gone: nothing trains on unattended.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cifar_mlflow.directories import writable
from cifar_mlflow.errors import CifarMlflowError
from cifar_mlflow.tuning.executors import Event, Task
from cifar_mlflow.tuning.process_executor import ProcessExecutor
from cifar_mlflow.tuning.worker_checks import Facts, facts

POLL = 0.5  # seconds between two looks whether the driver has asked for an end
OF_THE_NODE = "CIFAR_MLFLOW_"  # where data and state are: what is set on the node itself counts
Said = tuple[str, Any]  # as kind and payload of an Event; besides "unprepared" with the reason, and "stopped"


@dataclass(frozen=True)
class Looked:
    """What a worker has told of the machine that it is on, before it prepares itself."""

    node: str
    facts: Facts


@dataclass(frozen=True)
class Begun:
    """A worker that has prepared itself, or could not: `fault` says why."""

    fault: str | None


class RayWorker:
    """To be made an actor. One call at a time, each of which ends with the next word of the worker process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` comes as an argument, since Ray writes the variables of a runtime_env into its logs."""
        for name, value in environment.items():
            if not name.startswith(OF_THE_NODE) or name not in os.environ:
                os.environ[name] = value
        self._executor: ProcessExecutor | None = None
        self._asked: Event | None = None
        self._turn, self._stopping = threading.Lock(), threading.Event()

    def look(self) -> Looked:
        import ray

        return Looked(str(ray.util.get_node_ip_address()), facts())

    def begin(
        self,
        threads: int,
        task: Task,
        check: Callable[[], None],
        prepare: Callable[[], None],
        log: str,
        preload: Sequence[str],
    ) -> Begun:
        """Starts the worker process, which prints to the file `log` beside the state of this node's sweeps.

        `check` is called first, and raises CifarMlflowError for what can be seen at once.
        """
        try:
            check()
            path = writable("sweeps") / log.format(os.getpid())
            with self._turn:
                self._executor = ProcessExecutor(1, threads, task, prepare, path, preload)
                while not self._executor.ready and not self._stopping.is_set():
                    list(self._executor.events(POLL))
        except CifarMlflowError as error:
            return Begun(str(error).removeprefix("the workers cannot start: "))
        return Begun(None)

    def clock(self) -> float:
        return time.time()

    def run(self, argument: Any) -> Said:
        with self._turn:
            if self._executor:
                self._executor.submit("the task", argument)
            return self._next()

    def go_on(self, answer: bool) -> Said:
        """Answers the event that was said last."""
        with self._turn:
            if self._executor and self._asked:
                self._executor.answer(self._asked, answer)
            return self._next()

    def _next(self) -> Said:
        while self._executor and not self._stopping.is_set():
            try:
                event = next(self._executor.events(POLL), None)
            except CifarMlflowError as error:
                return "unprepared", str(error)
            if event:
                self._asked = event
                return event.kind, event.payload
        return "stopped", None

    def stop(self) -> None:
        """Ends the worker process, which closes its run; called beside a call that waits for it."""
        self._stopping.set()
        with self._turn:
            executor, self._executor = self._executor, None
            if executor:
                executor.__exit__()
