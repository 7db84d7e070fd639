from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest

from cifar_mlflow.analysis.comparison import formats
from cifar_mlflow.analysis.comparison.verdicts import Comparison, compare
from cifar_mlflow.records import RunRecord

MakeRun = Callable[..., RunRecord]


@pytest.fixture
def comparison(make_run: MakeRun) -> Comparison:
    results = {"prelu": [76.0, 76.4, 76.1], "relu": [70.0, 70.2, 70.1], "elu": [75.8, 76.3, 76.0], "silu": [71.0]}
    runs = [
        make_run(value, seed, parameters={"activation": activation, "learning_rate": 0.002})
        for activation, values in results.items()
        for seed, value in enumerate(values)
    ]
    runs.append(make_run(None, status="FAILED", name="broken", parameters={"activation": "gelu"}))
    reported = [{"activation": "relu", "accuracy": [75.19]}, {"activation": "gelu", "accuracy": [74.0]}]
    return compare(runs, reported=reported)


def test_table_is_aligned_and_fits(comparison: Comparison) -> None:
    lines = formats.to_table(comparison).splitlines()
    assert lines[0] == "final_val_accuracy, 4 configurations"
    assert lines[2].split() == ["95%"]
    assert lines[3].split() == ["activation", "n", "mean", "interval", "min", "max", "minutes", "reported", "verdict"]
    assert lines[5].split() == ["prelu", "3", "76.17", "75.65–76.68", "76.00", "76.40", "2.0", "-", "best"]
    # Text stands to the left, numbers to the right.
    assert lines[5].startswith("prelu       3  76.17  75.65–76.68  76.00  76.40      2.0         -  best")
    assert lines[6].endswith("  not distinguishable")
    assert lines[7].endswith("  one run: no interval")
    assert "worse by 6.07 (p" in lines[8]
    assert {line.rindex("  ") for line in lines[4:9]} == {lines[3].index("verdict") - 2}
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("Not compared, FAILED: 1 run (broken)") for line in lines)


def test_table_lists_parameters_below_where_they_do_not_fit(make_run: MakeRun) -> None:
    runs = [make_run(parameters={f"parameter_{n}_long": 10**8 * a + n * a for n in range(5)}) for a in (1, 2)]
    lines = formats.to_table(compare(runs)).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.split()[:3] == ["1", "1", "70.00"] for line in lines)
    assert any(line.startswith("#1 parameter_0_long 100000000, parameter_1_long 100000001") for line in lines)
    assert any(line.startswith("#2 parameter_0_long 200000000") for line in lines)


def test_table_without_rows_still_says_what_was_left_out(make_run: MakeRun) -> None:
    text = formats.to_table(compare([make_run(None, status="FAILED", name="broken")]))
    assert "no run to compare" in text
    assert "FAILED: 1 run (broken)" in text
    assert "FAILED: 1 run (broken)" in formats.to_markdown(compare([make_run(None, status="FAILED", name="broken")]))


def test_control_characters_do_not_reach_the_terminal(make_run: MakeRun) -> None:
    runs = [make_run(name="x\x1b[2J", seed=seed, parameters={"a": "red\x1b[31m\nline"}) for seed in (0, 0)]
    other = make_run(parameters={"a": "plain"})
    assert "\x1b" not in formats.to_table(compare([*runs, other]))


def test_a_loss_keeps_its_digits(make_run: MakeRun) -> None:
    run = make_run(metrics={"val_loss": 0.0123456})
    assert "0.01235" in formats.to_table(compare([run], objective="val_loss"))


def test_markdown_is_a_table_that_text_cannot_break(make_run: MakeRun, comparison: Comparison) -> None:
    lines = formats.to_markdown(comparison).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 6
    assert {line.count("|") for line in table} == {10}
    assert table[1].startswith("| --- | ---: |")
    assert lines[-1].startswith("- Reported, with no run here: activation gelu: 74.00.")
    hostile = formats.to_markdown(compare([make_run(parameters={"a": "x|y\n<b>"}), make_run(parameters={"a": 1})]))
    assert r"| x\|y \<b\> |" in hostile


def test_csv_reads_back(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(formats.to_csv(comparison))))
    assert [row["parameter:activation"] for row in rows] == ["prelu", "elu", "silu", "relu", "gelu"]
    assert [row["verdict"] for row in rows] == ["best", "not distinguishable", "one run", "worse", "FAILED"]
    assert rows[0]["mean"] == "76.1667"
    assert float(rows[3]["difference"]) == pytest.approx(6.0667, abs=1e-3)
    assert rows[3]["reported"] == "75.19"
    assert rows[3]["run_ids"] == "id4 id5 id6"
    assert (rows[2]["low"], rows[2]["sd"]) == ("", "")
    assert (rows[4]["n"], rows[4]["mean"], rows[4]["run_ids"]) == ("0", "", "id11")


def test_csv_keeps_every_digit_of_a_parameter(make_run: MakeRun) -> None:
    text = formats.to_csv(compare([make_run(parameters={"lr": 0.00371914852}), make_run(parameters={"lr": 0.1})]))
    assert {row["parameter:lr"] for row in csv.DictReader(io.StringIO(text))} == {"0.00371914852", "0.1"}


def test_csv_keeps_a_parameter_apart_from_a_column_of_the_same_name(make_run: MakeRun) -> None:
    text = formats.to_csv(compare([make_run(parameters={"n": 7}), make_run(parameters={"n": 9})]))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["parameter:n"], row["n"]) for row in rows] == [("7", "1"), ("9", "1")]


def test_json_holds_everything(comparison: Comparison) -> None:
    document = json.loads(formats.to_json(comparison))
    assert document["columns"] == ["activation"]
    assert document["common"] == {"learning_rate": 0.002}
    first, _, single, last = document["configurations"]
    assert first["verdict"] == "best"
    assert first["mean"] == pytest.approx(76.16667, abs=1e-4)
    assert [run["seed"] for run in first["runs"]] == [0, 1, 2]
    assert single["low"] is None
    assert 0 < last["p"] < 0.05
    assert document["not_compared"] == [{"reason": "FAILED", "runs": [{"run_id": "id11", "name": "broken"}]}]
    assert document["reported_unmatched"] == [{"parameters": {"activation": "gelu"}, "accuracy": [74.0]}]
    assert document["spread"]["degrees"] == 6


def test_replication_has_no_verdict_column(make_run: MakeRun) -> None:
    runs = [make_run(metrics={"epoch_test_accuracy": 77.0}, parameters={"validation_size": 0})]
    assert "verdict" not in formats.to_table(compare(runs)).splitlines()[3]
    assert "verdict" not in formats.to_markdown(compare(runs)).splitlines()[2]
