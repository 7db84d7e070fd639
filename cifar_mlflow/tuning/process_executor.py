"""Worker processes that live for a whole sweep and are replaced, one by one, when they are killed.

Python's own ProcessPoolExecutor gives up all its work when one process dies. Here the driver is told which task was
lost, and a new process takes the dead one's place.

A worker that runs a task may send events; each is answered by the driver with yes (go on) or no. A worker ends itself
when its driver is gone, so that nothing trains on unattended.

On Linux the workers are forked from one process that has imported what they need, and does nothing else: the fork
server of `multiprocessing`, which lives as long as the driver. Elsewhere each is started anew and imports it itself.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from cifar_mlflow.errors import CifarMlflowError, Interrupted
from cifar_mlflow.text import redact
from cifar_mlflow.tuning.executors import Event, Task

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# `mlflow run` names its run here; a worker that inherited it would write into that run.
NOT_INHERITED = ("MLFLOW_RUN_ID",)
# Forking is safe where no library has threads or a GPU's driver at work; on macOS the system's own have.
FORKED = sys.platform == "linux"
# Of the fork server: threads of numpy and of MLflow's telemetry could hold a lock at the moment of a fork.
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
SIGNALS = {getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGTERM") if hasattr(signal, name)}
WRAP_UP = 20.0  # seconds that a worker has to close its run before it is killed


@dataclass(eq=False)
class Worker:
    """A worker process, as the driver sees it. `task_id` is that of what it is at work on; None if it is idle."""

    process: BaseProcess
    connection: Connection
    task_id: Any = None
    ready: bool = False


class ProcessExecutor(AbstractContextManager["ProcessExecutor"]):
    """`count` processes, each with `threads` for numerical libraries. Used in a `with`, by one thread."""

    def __init__(
        self,
        count: int,
        threads: int,
        task: Task,
        prepare: Callable[[], None],
        log: Path,
        preload: Sequence[str] = (),
        devices: Sequence[str] = (),
    ) -> None:
        """`task` and `prepare` are module-level functions, or partial ones; `prepare` runs first in each new process.

        What the workers print goes to the file `log`: on the terminal it would stand between the driver's lines.
        `preload` names the modules to import before the workers are forked, where they are. `devices` are the GPUs that
        each worker may use, as CUDA_VISIBLE_DEVICES names them; without any, a worker inherits what the driver has.
        """
        self._forked, self._preload = FORKED, preload
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(threads))):
            own = [{"CUDA_VISIBLE_DEVICES": name} for name in devices] or [{}] * count
            self._environments = [{**os.environ, **each} for each in own]
        self._arguments = (task, prepare, log)
        self._workers = [self._start(number) for number in range(count)]
        self._deaths_in_preparation = 0

    @property
    def ready(self) -> bool:
        """Whether all workers have prepared themselves; `events` takes note of it."""
        return all(worker.ready for worker in self._workers)

    @property
    def idle(self) -> int:
        """The number of workers without a task."""
        return sum(worker.task_id is None for worker in self._workers)

    def submit(self, task_id: Any, argument: Any) -> None:
        """Gives an idle worker a task. Its outcome comes out of `events`."""
        worker = next(worker for worker in self._workers if worker.task_id is None)
        worker.task_id = task_id
        with suppress(OSError):  # a worker that is just dying is found by `events`, which tells that the task was lost
            worker.connection.send(argument)

    def events(self, timeout: float) -> Iterator[Event]:
        """What the workers have said, after a wait of at most `timeout` seconds for the first word.

        Raises:
            CifarMlflowError: the workers cannot start.
        """
        signs: dict[Any, Worker] = {worker.connection: worker for worker in self._workers}
        signs |= {worker.process.sentinel: worker for worker in self._workers}
        for worker in {signs[ready] for ready in wait(signs, timeout)}:
            yield from self._read(worker)

    def answer(self, event: Event, go_on: bool) -> None:
        with suppress(OSError):
            event.worker.connection.send(go_on)

    def __exit__(self, *ending: object) -> None:
        """Ends all workers: the busy ones get SIGTERM, and time to close their runs before they are killed."""
        for worker in self._workers:
            worker.connection.close()
            if worker.task_id is not None or not worker.ready:
                worker.process.terminate()
        deadline = time.monotonic() + WRAP_UP
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()  # of no effect on one that has ended
            worker.process.join()

    def _read(self, worker: Worker) -> Iterator[Event]:
        alive = False
        with suppress(EOFError, OSError):
            while worker.connection.poll():
                kind, payload = worker.connection.recv()
                if kind == "ready":
                    worker.ready, self._deaths_in_preparation = True, 0
                    continue
                if kind == "unprepared":
                    raise CifarMlflowError(f"the workers cannot start: {payload}")
                event = Event(kind, worker.task_id, payload, worker)
                if kind != "event":
                    worker.task_id = None
                yield event
            alive = worker.process.is_alive()
        if not alive:
            yield from self._replace(worker)

    def _replace(self, worker: Worker) -> Iterator[Event]:
        worker.process.join()
        worker.connection.close()
        ending = _ending(worker.process.exitcode)
        if not worker.ready:
            self._deaths_in_preparation += 1
            if self._deaths_in_preparation > len(self._workers):
                raise CifarMlflowError(f"the workers cannot start ({ending}); see {self._arguments[-1]}")
        number = self._workers.index(worker)
        self._workers[number] = self._start(number)
        if worker.task_id is not None:
            yield Event("lost", worker.task_id, ending, worker)

    def _start(self, number: int) -> Worker:
        ours, theirs = multiprocessing.Pipe()
        try:
            process = self._launch(theirs, self._environments[number])
        except (EOFError, OSError):
            if not self._forked:
                raise
            self._forked = False  # the fork server has died of one of the modules: a worker can tell of which
            process = self._launch(theirs, self._environments[number])
        theirs.close()
        return Worker(process, ours)

    def _launch(self, theirs: Connection, environment: dict[str, str]) -> BaseProcess:
        if self._forked:
            start_fork_server(self._preload)
        start = get_context("forkserver").Process if self._forked else get_context("spawn").Process
        process = start(target=_work, args=(theirs, environment, *self._arguments), daemon=True)
        with _environment(environment):
            process.start()
        return process


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"the worker process was killed by {signal.Signals(-exit_code).name}"
    return f"the worker process ended with exit code {exit_code}"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """What a process started inside inherits: numerical libraries read their threads when they are first imported."""
    before = {name: os.environ.pop(name) for name in (*variables, *NOT_INHERITED) if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


def start_fork_server(preload: Sequence[str]) -> None:
    """Has the process from which workers are forked import `preload`, without waiting; does nothing if it runs."""
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(["cifar_mlflow.tuning.fork_server", *preload])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal to this process comes a moment later
    try:
        with _environment(NO_THREADS):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    connection: Connection, environment: dict[str, str], task: Task, prepare: Callable[[], None], log: Path
) -> None:
    """The life of a worker process."""
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    # Ctrl-C and a closed terminal reach the whole process group; it is the driver who decides what becomes of it.
    for number in SIGNALS - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_driver, args=(os.getppid(),), daemon=True).start()

    def tell(event: Any) -> bool:
        try:
            connection.send(("event", event))
            return bool(connection.recv())
        except (EOFError, OSError):
            # The driver is gone: what runs is to end as it would at a signal.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise Interrupted(signal.SIGTERM) from None

    # The driver closes the connection to say that nothing is left to do, and when it dies.
    with suppress(EOFError, OSError, Interrupted):
        try:
            prepare()
        except Exception as error:
            connection.send(("unprepared", _reason(error)))
            return
        connection.send(("ready", None))
        while True:
            argument = connection.recv()
            try:
                outcome = "done", task(argument, tell)
            except Exception as error:
                outcome = "failed", _reason(error)
            connection.send(outcome)


def _reason(error: Exception) -> str:
    """The error in words; where it is none that a user can cause, the log gets the whole of it."""
    if isinstance(error, CifarMlflowError):
        return redact(str(error))
    print(redact(traceback.format_exc()), file=sys.stderr)
    return redact(f"{type(error).__name__}: {error}")


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted(number)


def _end_with_driver(parent: int) -> None:
    """Ends the process when the driver is gone, or the parent that tells the driver when this process ends."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    while driver.is_alive() and os.getppid() == parent:
        driver.join(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(WRAP_UP)
    os._exit(1)
