"""The status of a run as people are told it, and what they can do about one that died."""

from collections.abc import Mapping

from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import claims

DIED = "DIED"


def of(recorded: str, tags: Mapping[str, str]) -> str:
    """MLflow's status of a run, or DIED: it is recorded as RUNNING by a process of this machine that is gone."""
    # A sweep in parts is RUNNING by any of the processes that have a part of it.
    died = recorded == "RUNNING" and processes.is_gone(tags) and not claims.running(tags)
    return DIED if died else recorded


def remedy(run_id: str, tags: Mapping[str, str]) -> str:
    """The command that goes on with a run that died, or makes it again."""
    if tags.get("kind") == "sweep":
        return "cifar-mlflow sweep SPEC"
    if "reproduces" in tags:
        return f"cifar-mlflow reproduce {tags['reproduces']}"
    return f"cifar-mlflow train --resume {run_id}"
