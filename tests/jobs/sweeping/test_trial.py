"""What is looked at before a run of a sweep is trained."""

import pytest

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.sweeping import estimate, trial

SPACE = {"batch_size": {"kind": "choice", "values": [8, 1290]}}
SPEC = SweepConfig.model_validate({"name": "s", "base": {"dataset": "digits"}, "space": SPACE})


def test_a_worker_trains_nothing_with_other_data_or_another_network_than_the_sweep_began_with(runs):
    config = resolve({"dataset": "digits"})
    planned = trial.TrialRun(config, "n", {"run_fingerprint": config.run_fingerprint("0" * 32)})
    with pytest.raises(ConfigurationError, match="data, network or weights have changed since the sweep was started"):
        trial.run_trial(SPEC, "e", planned, lambda event: True)
    assert runs() == []


def test_batches_beyond_all_images_are_told_before_the_sweep():
    told = "--batch-size 1290 has no effect beyond 1,290"
    assert [text for text in estimate.warnings(SPEC) if told in text] == []  # digits hold out 143 of 1,433
    larger = SweepConfig.model_validate(
        SPEC.model_dump() | {"space": {"batch_size": {**SPACE["batch_size"], "values": [8, 1291]}}}
    )
    assert [text for text in estimate.warnings(larger) if "--batch-size 1291 has no effect beyond 1,290" in text]
