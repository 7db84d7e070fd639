"""MLflow's server for as long as the process that started it lives: `python -m` this module, with a pipe as its input.

A process that is killed (SIGKILL) can end nothing any more. But the pipe's other end closes with it, on any system and
whichever of its threads was the one that started this.
"""

import os
import signal
import sys
import threading


def main() -> None:
    threading.Thread(target=_end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    from mlflow.cli import cli  # seconds, in which the one who waits may be killed, too

    cli()


def _end_with(pipe: int) -> None:
    """Ends this process and all that it started, its group, when the pipe's other end is closed."""
    while os.read(pipe, 1024):
        pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)  # Windows has no groups


if __name__ == "__main__":
    main()
