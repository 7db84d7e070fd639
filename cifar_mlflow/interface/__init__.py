"""The Python interface: each function is a command of the command line, with the same words for what is wrong.

Common to all of them:

- Faults are exceptions of `cifar_mlflow.errors`; warnings are Python's own (`warnings`). Nothing is printed.
- `tracking_uri` is the store, a Path an SQLite file; without it, what `mlflow.set_tracking_uri` or
  MLFLOW_TRACKING_URI says, else ./mlflow.db.
- `progress` shows bars: True, False, or None for on a terminal and in a notebook. Each is one of tqdm's.
- The process is afterwards what it was: its environment, torch's settings, the random states, the signal handlers.
"""

from cifar_mlflow.interface.models import (
    calibrate,
    evaluate,
    export,
    history,
    load,
    mislabelled,
    predict,
    promote,
    rollback,
)
from cifar_mlflow.interface.results import Comparison, Run, Sweep
from cifar_mlflow.interface.store import compare, doctor, list_runs, sync
from cifar_mlflow.interface.trainings import reproduce, resume, sweep, train

__all__ = [
    "Comparison", "Run", "Sweep", "calibrate", "compare", "doctor", "evaluate", "export", "history", "list_runs",
    "load", "mislabelled", "predict", "promote", "reproduce", "resume", "rollback", "sweep", "sync", "train",
]  # fmt: skip
