"""Run, track, compare and promote image-classification experiments with MLflow.

    import cifar_mlflow as cm

    run = cm.train(dataset="digits", epochs=2)
    run.history                                   # a DataFrame, a row an epoch
    cm.compare(run.experiment).to_frame()

What `__all__` names is documented in `cifar_mlflow.interface`; torch and MLflow are imported when it is first called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_mlflow.interface import (
        Comparison,
        Run,
        Sweep,
        calibrate,
        compare,
        doctor,
        evaluate,
        export,
        history,
        list_runs,
        load,
        mislabelled,
        predict,
        promote,
        reproduce,
        resume,
        rollback,
        sweep,
        sync,
        train,
    )  # fmt: skip  # isort: skip

# The one place of the version: pyproject.toml reads it from here, as a clone that was never installed does.
__version__ = "0.2.0"

__all__ = [
    "Comparison", "Run", "Sweep", "calibrate", "compare", "doctor", "evaluate", "export", "history", "list_runs",
    "load", "mislabelled", "predict", "promote", "reproduce", "resume", "rollback", "sweep", "sync", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cifar_mlflow import interface

    return getattr(interface, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
