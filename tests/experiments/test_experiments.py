"""Every file in experiments/ is what it says it is, and opens with the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import load_spec
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.jobs.compare import read_reported

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments").rglob("*.yaml"))
SECTIONS = {
    "activation", "optimizer", "scheduler", "batch_size", "dropout", "step_size", "gamma", "weight_init",
    "augmentation", "final",
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_it_is_valid_and_opens_with_its_command(path):
    command = path.read_text().splitlines()[0] + path.read_text().splitlines()[1]
    assert str(path.relative_to(ROOT)) in command
    values = read_yaml(path)
    if "space" in values:
        assert "cifar-mlflow sweep" in command
        spec = load_spec(path)
        assert spec.configurations * spec.repeats >= 1
    elif "results" in values:
        assert "cifar-mlflow compare" in command
        for row in read_reported(path):
            parameters = {name: value for name, value in row.items() if name != "accuracy"}
            assert resolve(parameters).model_dump().items() >= parameters.items()
            assert all(0 < accuracy < 100 for accuracy in row["accuracy"])
    elif "decisions" in values:
        assert "study.py" in command
    else:
        assert "cifar-mlflow train" in command
        resolve(values)


def test_each_section_of_the_report_is_there_in_both_readings():
    names = {path.stem for path in FILES if path.parent.name == "report" and path.stem != "reported"}
    assert names == {f"{section}-as-{reading}" for section in SECTIONS for reading in ("printed", "meant")}


@pytest.mark.parametrize("reading", ["printed", "meant"])
def test_every_reported_figure_stands_beside_a_run_of_each_reading(reading):
    """A row that no sweep's configuration matches could never be shown."""
    sweeps = [load_spec(path) for path in FILES if path.stem.endswith(f"-as-{reading}")]
    configurations = [sweep.configuration(values, 0).model_dump() for sweep in sweeps for values in sweep.grid()]
    rows = list(read_reported(ROOT / "experiments/report/reported.yaml"))
    mine = [row for row in rows if (row["scheduler"] == "none") == (reading == "printed")]
    for row in mine:
        parameters = {name: value for name, value in row.items() if name != "accuracy"}
        assert any(config.items() >= parameters.items() for config in configurations), row
    assert sum(len(row["accuracy"]) for row in mine) >= 40


def test_the_final_method_is_the_default():
    assert resolve(read_yaml(ROOT / "experiments/final.yaml")) == TrainingConfig()
