"""`cifar-mlflow` as a program, with its signals and streams, less the seconds of imports: forked from the server."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import Any, TextIO

import forked


class Program:
    """What tests use of `subprocess.Popen`, with stdout and stderr as pipes of text."""

    def __init__(self, *words: object) -> None:
        pipes = [forked.context.Pipe(duplex=False) for _ in range(2)]
        ends = [sender for _, sender in pipes]
        arguments = (ends, os.getcwd(), dict(os.environ), [str(word) for word in words])
        self._process = forked.start_call(_main, *arguments)
        for sender in ends:
            sender.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(receiver.fileno())) for receiver, _ in pipes)
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        assert self.returncode is not None, "the command hangs"
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        texts = ["", ""]

        def read(index: int, stream: TextIO) -> None:
            with stream:
                texts[index] = stream.read()

        open_ones = [(index, each) for index, each in enumerate((self.stdout, self.stderr)) if each and not each.closed]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in open_ones]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _main(ends: list[Any], directory: str, environment: dict[str, str], words: list[str]) -> None:
    from cifar_mlflow import cli

    for number, sender in enumerate(ends, 1):
        os.dup2(sender.fileno(), number)
        sender.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["cifar-mlflow", *words]
    if words[0] == "sweep":
        forked.fork_a_fork_server()
    try:
        cli.main()
    finally:
        atexit._run_exitfuncs()
