"""What workers run in the tests of executors, in a module that can be imported anywhere; how they are driven."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from cifar_mlflow.errors import DataError


def nothing():
    pass


def cannot_prepare():
    raise DataError("no data here")


def dies_in_preparation():
    os._exit(3)


def prints_while_it_prepares():
    print("to standard output", flush=True)
    print("to standard error", file=sys.stderr, flush=True)


def square(argument, tell):
    return argument**2


def anything(argument, tell):
    """Any of the functions here, by its name: of one executor, all tasks are done by one function."""
    name, argument = argument
    return globals()[name](argument, tell)


def environment(argument, tell):
    return os.getpid(), os.environ.get("MLFLOW_RUN_ID"), os.environ.get("OMP_NUM_THREADS")


def device(argument, tell):
    if argument:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def count_until_told(argument, tell):
    number = 0
    while tell(number):
        number += 1
    return number


def fail(argument, tell):
    raise DataError("a reason in words") if argument == "expected" else ValueError("a bug")


def kill_itself(argument, tell):
    if tell(os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def sleep_until_terminated(argument, tell):
    path = argument
    try:
        tell(os.getpid())
        time.sleep(60)
    except BaseException as error:
        time.sleep(0.3)  # as if it had something to close
        path.write_text(type(error).__name__)
        raise


def parent(argument, tell):
    names = [path.read_text().strip() for path in Path(f"/proc/{os.getppid()}/task").glob("*/comm")]
    others = [name for name in names if not name.startswith("jemalloc")]  # pyarrow's, which is made for forks
    return os.getppid(), len(others), "torch.export._trace" in sys.modules


# ------------------------------------------------------------------------------------------------- what a driver does


def until(executor, kind, answer=True):
    """Answers events until one of `kind` comes; returns it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for event in executor.events(0.2):
            if event.kind == "event":
                executor.answer(event, answer)
            if event.kind == kind:
                return event
    raise AssertionError(f"no {kind}")


def outcomes(executor, count):
    found = {}
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        for event in executor.events(0.2):
            found[event.task_id] = (event.kind, event.payload)
    return found
