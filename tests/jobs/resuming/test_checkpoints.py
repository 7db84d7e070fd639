"""The checkpoints of a run, by themselves; tests/jobs/resuming/test_resume.py has whole runs."""

from types import SimpleNamespace

import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.jobs.training.checkpoints import RunCheckpoints


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch for weight:\n copying"), ValueError("a parameter group")]
)
def test_a_checkpoint_of_another_network_is_refused_by_name(error):
    def restore(state):
        raise error

    checkpoints = RunCheckpoints()
    checkpoints._saved = {"training": {}, "results": [], "best": {}}
    session = SimpleNamespace(restore=restore, config=SimpleNamespace(network="mine:build"))
    with pytest.raises(ModelError, match="does not fit the network that mine:build is here"):
        checkpoints.attach(session, SimpleNamespace())
