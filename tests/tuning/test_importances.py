"""From which results on a sweep can say what its objective depends on."""

from pathlib import Path

from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.tuning.study import TuningStudy


def test_two_different_results_are_enough():
    values = {"name": "study", "base": {"dataset": "digits", "epochs": 9}, "space": {"activation": ["relu", "elu"]}}
    values["space"]["batch_size"] = [8, 16]
    study = TuningStudy(parse_spec({**values, "sampler": "grid"}, Path("/")), None)
    while suggestion := study.suggest():
        study.tell(suggestion.number, float(suggestion.values["activation"] == "elu"))
    assert list(study.importances()) == ["activation", "batch_size"]
