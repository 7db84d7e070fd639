"""What there is in a store and on this machine, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cifar_mlflow.interface.call import called, checked
from cifar_mlflow.interface.results import Comparison, Run, Sweep, name_of

if TYPE_CHECKING:
    import pandas as pd

    from cifar_mlflow.jobs.doctor import Report
    from cifar_mlflow.jobs.sync import SyncOutcome


def compare(
    *what: str | Run | Sweep,
    condition: str | None = None,
    objective: str = "final_val_accuracy",
    difference: float | None = None,
    with_test: bool = False,
    reported: str | Path | None = None,
    tracking_uri: str | Path | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Compares the runs that `what` names: sweeps, experiments, runs.

    `condition` is a filter as MLflow's `search_runs` takes it; the rest are the options of `cifar-mlflow compare`.

    >>> len(cm.compare("two").to_frame())
    2

    Raises:
        ModelError: there are no such runs.
        ConfigurationError: the objective is measured on the test set, or no run has it.
        TrackingError: the store cannot be read.
    """
    from cifar_mlflow.jobs.compare import compare as job

    with called(tracking_uri, progress):
        judged = checked(job)(
            tuple(name_of(each) for each in what),
            condition=condition,
            objective=objective,
            difference=difference,
            with_test=with_test,
            reported=reported,
            with_curves=True,
        )
    titles = [each.name if isinstance(each, Run | Sweep) else each for each in what]
    return Comparison(judged, ", ".join(titles) or condition or "all runs")


def list_runs(
    count: int = 20, *, experiment: str | None = None, tracking_uri: str | Path | None = None
) -> pd.DataFrame:
    """The runs and sweeps that began last, the newest first; accuracies in per cent.

    >>> cm.list_runs(2).name.tolist()
    ['two', 'digits-prelu-adam-seed0']

    Raises:
        ModelError: there is no such experiment.
        TrackingError: the store cannot be read.
    """
    import pandas as pd
    from pydantic import Field

    from cifar_mlflow.jobs.browsing.runs import latest
    from cifar_mlflow.records import RunSummary

    with called(tracking_uri, progress=False):
        found = checked(latest, count=Annotated[int, Field(ge=1)])(count, experiment)
        return pd.DataFrame(list(map(vars, found)), columns=list(RunSummary.__dataclass_fields__))


def sync(*, to_this_store: bool = False, tracking_uri: str | Path | None = None) -> SyncOutcome:
    """Delivers to the store what was recorded while it could not be reached, or offline.

    >>> cm.train(dataset="digits", epochs=1, scheduler="none", run_name="underground", offline=True).waiting > 0
    True
    >>> len(cm.sync().delivered)
    1

    Raises:
        TrackingError: the store cannot be reached.
    """
    from cifar_mlflow.jobs.sync import sync as job

    with called(tracking_uri, progress=False):
        return checked(job)(to_this_store=to_this_store)


def doctor(*, fix: bool = False, tracking_uri: str | Path | None = None, progress: bool | None = None) -> Report:
    """Looks at everything around the runs; with `fix`, puts right what is safe to put right.

    >>> "store" in cm.doctor().well
    True
    """
    from cifar_mlflow.jobs.doctor import doctor as job

    with called(tracking_uri, progress):
        return checked(job)(fix=fix)
