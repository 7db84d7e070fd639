"""Commands as processes of their own that start in an instant: forked from a server that has imported everything.

A process can be made to kill itself right before its nth write to the store, or its nth checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path
from typing import Any

from support import Outcome, run_here

from cifar_mlflow.tuning import process_executor

WRITES = ("create_", "set_", "update_", "delete_", "log_", "finalize_")
PRELOADED = [
    "torch._inductor",
    "torch.export._trace",
    "matplotlib.backends.backend_agg",
    "fastapi",
    "uvicorn.main",
    "mlflow.server.handlers",
    "mlflow.pytorch",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "cifar_mlflow.jobs.promote",
    "cifar_mlflow.jobs.resume",
    "cifar_mlflow.learning.checkpoint_files",
    "cifar_mlflow.learning.export",
    "cifar_mlflow.learning.training",
    "cifar_mlflow.jobs.rollback",
    "cifar_mlflow.cli.training",
    "forked",
    "programs",
    "servers",
    "warm_up",
]

context = multiprocessing.get_context("forkserver")


@dataclass
class Forked:
    """A command in progress."""

    process: Any
    _pipe: Any

    def wait(self, seconds: float = 120) -> Outcome:
        """How it ended; the code of a process that was killed is negative, and what it printed is lost."""
        outcome = None
        if self._pipe.poll(seconds):
            try:
                outcome = self._pipe.recv()
            except EOFError:  # it was killed
                outcome = None
        self.process.join(10)
        assert self.process.exitcode is not None, "the command hangs"
        return outcome or Outcome(self.process.exitcode, "", "")


def start(
    directory: Path,
    *words: object,
    tracking_uri: str | None = None,
    kill_before_write: int = 0,
    change: Callable[[], None] | None = None,
) -> Forked:
    """Starts `cifar-mlflow WORDS` in `directory`, with the store there or at `tracking_uri`.

    `change` is a function at the top of a module, called in the process before the command.
    """
    receiver, sender = context.Pipe(duplex=False)
    variables = {"CIFAR_MLFLOW_STATE": str(directory / "state"), "OMP_NUM_THREADS": "1"}
    variables |= {"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {}
    arguments = (sender, str(directory), variables, [str(word) for word in words], kill_before_write, change)
    process = context.Process(target=_run, args=arguments)
    _start(process)
    sender.close()
    return Forked(process, receiver)


def _start(process: Any) -> None:
    process_executor.start_fork_server(PRELOADED)
    process.start()


def start_call(function: Callable[..., None], *arguments: Any) -> Any:
    """Starts a process that calls the function, which stands at the top of a module; returns the process."""
    process = context.Process(target=function, args=arguments)
    _start(process)
    return process


def fork_a_fork_server() -> None:
    """Gives this forked process a fork server of its own, without the imports: for a sweep, and before any thread."""
    spawn = util.spawnv_passfds

    def fork(path: bytes, arguments: Sequence[str], kept: Sequence[int]) -> int:
        assert "forkserver" in arguments[-1]
        if child := os.fork():
            return child
        ends = sorted(kept)
        for after, before in zip([2, *ends], [*ends, os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(after + 1, before)
        signal.pthread_sigmask(signal.SIG_BLOCK, process_executor.SIGNALS)  # as `start_fork_server` has it
        try:
            exec(arguments[-1])
        finally:
            os._exit(0)

    util.spawnv_passfds = fork
    process_executor.start_fork_server(PRELOADED)
    util.spawnv_passfds = spawn


def run(directory: Path, *words: object, **options: Any) -> Outcome:
    return start(directory, *words, **options).wait()


def call(directory: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function at the top of a module returns in a process of its own that stands in `directory`."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, str(directory), function, arguments))
    _start(process)
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join(10)


def _call(pipe: Any, directory: str, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    _stand_in(directory, {"CIFAR_MLFLOW_STATE": str(Path(directory) / "state"), "OMP_NUM_THREADS": "1"})
    pipe.send(function(*arguments))
    os._exit(0)


def _stand_in(directory: str, variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ.update(variables)
    os.chdir(directory)


def _run(
    pipe: Any,
    directory: str,
    variables: dict[str, str],
    words: Sequence[str],
    kill_before_write: int,
    change: Callable[[], None] | None,
) -> None:
    _stand_in(directory, variables)
    _smoke_here()
    if kill_before_write:
        _kill_before(kill_before_write)
    if change is not None:
        change()
    pipe.send(run_here(*words))
    sys.stdout.flush()
    os._exit(0)


def _smoke_here() -> None:
    """The smoke gate's script within this process: it is tested as a process elsewhere."""
    from cifar_mlflow.tracking.registry import smoke, smoke_process

    def here(model: Path, tracking_uri: str) -> smoke.SmokeResult:
        result = Path(f"smoke-{os.getpid()}.json")
        smoke_process.main(str(model), str(result))
        return smoke.read_result(result)

    smoke.run = here


def _kill_before(number: int) -> None:
    from cifar_mlflow.tracking import retry

    original, count = retry.patiently, 0

    def counted(call: Any) -> Any:
        patient = original(call)
        if not call.__name__.startswith(WRITES):
            return patient

        def write(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return patient(*arguments, **options)

        return write

    retry.patiently = counted


def checkpoint_each_step() -> None:
    """Instead of every ten minutes, and after an epoch."""
    from cifar_mlflow.jobs.training import checkpoints
    from cifar_mlflow.learning import training

    checkpoints.MINUTES, checkpoints.SECONDS, training.STEPS_BETWEEN_CHECKS = 0.0, 0.0, 1


def kill_at_checkpoint(number: int, moment: str) -> None:
    """With a checkpoint each step: kills at the nth when it is `half` written, `written`, or has been `renamed`."""
    from cifar_mlflow.learning import checkpoint_files

    checkpoint_each_step()
    original, count = checkpoint_files._write_whole, 0

    def watched(path: Path, parts: list[Any]) -> None:
        nonlocal count
        count += 1
        if count == number and moment != "renamed":
            Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        if count == number and moment == "half":
            parts = [*parts[:-1], parts[-1][: len(parts[-1]) // 2]]
        original(path, parts)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint_files._write_whole = watched
