"""The best configuration, as a running sweep tells it: with the interval that the comparison will have."""

from pathlib import Path

from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.jobs.sweeping.progress import SweepProgress


def test_two_equal_values_have_an_interval_too(work):
    spec = parse_spec(
        {"name": "s", "base": {"dataset": "digits"}, "space": {"activation": ["relu", "elu"]}}, Path(work)
    )
    shown = SweepProgress(spec, 4, 1)
    for _ in range(2):
        shown.known({"activation": "relu"}, 100 * 140 / 143, 143)
    assert shown._best() == "activation relu: 97.90 (96.09–99.72, n=2)"
    shown.close()
