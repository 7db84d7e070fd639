"""What the commands of a page need beside them: files to work on, and programs that run, are interrupted or killed.

`python scenes.py NAME` makes a scene in the current directory; pages name this file $SCENES.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot")
PORTION, FEW = 300, 60  # images of a class, and of the bags


def photos() -> None:
    """photos/: 2,760 images of Fashion-MNIST as PNG files, few of them bags."""
    import numpy as np
    from PIL import Image

    def read(name: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((FASHION_MNIST / name).read_bytes()), np.uint8, offset=header)

    images = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = read("train-labels-idx1-ubyte.gz", 8)
    for label, name in enumerate(CLASSES):
        folder = Path("photos", name)
        folder.mkdir(parents=True)
        chosen = images[labels == label][-(FEW if name == "bag" else PORTION) :]
        for number, image in enumerate(chosen):
            Image.fromarray(image).save(folder / f"{number:03}.png")


def scans() -> None:
    """scans/: three of scikit-learn's digits in the form of the models, and a file that is damaged."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    Path("scans").mkdir()
    for name, label in (("three", 3), ("seven", 7), ("nine", 9)):
        pixels = np.round(digits.images[digits.target == label][0] * (255 / 16)).astype(np.uint8)
        enlarged = np.stack([pixels.repeat(4, axis=0).repeat(4, axis=1)] * 3, axis=-1)
        Image.fromarray(enlarged).save(f"scans/{name}.png")
    Path("scans/torn.png").write_bytes(Path("scans/three.png").read_bytes()[:200])


def killed() -> None:
    """A training that kill -9 has ended after its second epoch."""
    with running("cifar-mlflow train --dataset digits --epochs 30 --scheduler none", until="epoch  2/"):
        pass


@contextlib.contextmanager
def running(command: str, *, until: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command as a process that has printed the text `until`, with its lines so far; killed at the block's end.

    Raises:
        RuntimeError: it has ended without that.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        shlex.split(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        # What a shell starts in the background ignores Ctrl-C, and so would all that such a process starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    try:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if until in line:
                break
        else:
            raise RuntimeError(f"{command} has not printed {until!r} but:\n{''.join(printed)}")
        yield process, printed
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def interrupted(command: str, *, after: str) -> tuple[int, str]:
    """The exit code and all that the command prints to which Ctrl-C is sent when it has printed the text `after`."""
    with running(command, until=after) as (process, printed):
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
        return process.returncode, "".join([*printed, "^C\n", rest])


if __name__ == "__main__":
    {"photos": photos, "scans": scans, "killed": killed}[sys.argv[1]]()
