"""Which runs of a sweep go on, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifar_mlflow.jobs.sweep_plan import Outcome, Plan
from cifar_mlflow.sweep_config import parse_spec
from cifar_mlflow.tuning.study import TuningStudy


@pytest.fixture
def plan(tmp_path):
    values = {
        "name": "halving",
        "base": {"dataset": "digits", "epochs": 3},
        "space": {"activation": ["relu", "prelu", "elu"]},
        "pruner": "successive_halving",
    }
    spec = parse_spec(values, Path("/"))
    study = TuningStudy(spec, tmp_path / "journal.log")
    return Plan(spec, study, lambda config: config.run_fingerprint("data"), [])


def test_a_run_that_others_outdo_is_ended_early_but_not_after_its_last_epoch(plan):
    first = plan.next()
    assert [plan.report(first, epoch, 90.0) for epoch in (1, 2, 3)] == [True] * 3
    plan.finish(first, Outcome("FINISHED", 90.0))
    worse = plan.next()
    assert not plan.report(worse, 1, 10.0)
    plan.finish(worse, Outcome("PRUNED"))
    # After three epochs is a decision as well; but there is nothing left to save, and a result to lose.
    late = plan.next()
    assert [plan.report(late, epoch, value) for epoch, value in ((1, 95.0), (2, 95.0), (3, 10.0))] == [True] * 3
