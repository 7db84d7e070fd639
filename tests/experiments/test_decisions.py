"""The study of the report's decisions: its table is that of its runs, and its answers are what the runs say."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

DIRECTORY = Path(__file__).parents[2] / "experiments" / "decisions"


@pytest.fixture
def study(monkeypatch):
    spec = importlib.util.spec_from_file_location("study_of_decisions", DIRECTORY / "study.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_runs_and_each_setting_has_each_seed_once(study):
    decisions, _ = study.read_decisions()
    runs = study.read_runs()
    assert study.TABLE.read_text() == study.tables(decisions, runs)
    keys = [(run["parameter"], run["value"], run["seed"]) for run in runs]
    assert len(set(keys)) == len(keys) > 0
    named = {(decision.parameter, str(value)) for decision in decisions for value in decision.figures}
    swept = {(path.stem, str(value)) for path in DIRECTORY.glob("*.yaml")
             for value in yaml.safe_load(path.read_text()).get("space", {}).get(path.stem, [])}  # fmt: skip
    of_method = {(decision.parameter, study.final_value(decision.parameter)) for decision in decisions}
    assert {key[:2] for key in keys} <= swept | {("", "prelu")}
    assert named <= swept | of_method


def made_up(study, values):
    """Three seeds of each value, spread by a tenth of a point about the accuracy given for it."""
    return [
        {"parameter": "" if value == study.final_value("gamma") else "gamma", "value": value, "seed": str(seed),
         "final_val_accuracy": mean + gap, "test_accuracy": mean + gap, "minutes": 1}
        for value, mean in values.items() for seed, gap in enumerate((-0.1, 0.0, 0.1))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ({"0.1": 76.0, "0.15": 75.0}, "holds"),
        ({"0.1": 78.0, "0.15": 75.0}, "does not hold: 0.1 is better"),
        ({"0.1": 77.02, "0.15": 75.0}, "better than 0.15; cannot be told from 0.1"),
        ({"0.1": 77.02, "0.15": 77.0}, "cannot be told from 0.1, 0.15"),
    ],
)
def test_an_answer_is_what_the_verdicts_say(study, others, wanted):
    decision = study.Decision("gamma", 0.2, {})
    runs = made_up(study, {"0.2": 77.0, **others})
    assert study.answer(decision, study.compared(decision, runs)) == wanted
    without_effect = study.Decision("gamma", 0.2, {}, no_effect="it never fell")
    assert study.answer(without_effect, study.compared(decision, runs)) == "had no effect: it never fell"
    alone = [run for run in runs if run["seed"] == "0"]
    assert study.answer(decision, study.compared(decision, alone)) == "cannot be told: one run a setting"


def test_finished_runs_are_collected_once_each(study, cifar, work, monkeypatch):
    for name, parameter in (("final", "activation"), ("gamma", "gamma")):
        base = {"dataset": "digits", "epochs": 1, "activation": "prelu", "step_size": 1}
        spec = {"name": f"decision-{name}", "experiment": "decisions", "base": base, "workers": 1,
                "space": {parameter: ["prelu"] if name == "final" else [0.1]}}  # fmt: skip
        Path(f"{name}.yaml").write_text(yaml.safe_dump(spec))
        cifar("sweep", f"{name}.yaml")
    monkeypatch.setattr(study, "RUNS", work / "runs.csv")
    (work / "runs.csv").write_text(",".join(study.FIELDS) + "\n")
    study.collect()
    first = (work / "runs.csv").read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert [(row["parameter"], row["value"], row["seed"]) for row in rows] == [
        ("", "prelu", "0"),
        ("gamma", "0.1", "0"),
    ]
    assert all(0 < float(row["test_accuracy"]) <= 100 for row in rows)
    study.collect()
    assert (work / "runs.csv").read_text() == first
