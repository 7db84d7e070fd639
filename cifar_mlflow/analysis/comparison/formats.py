"""A comparison as text: a table for the terminal, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Sequence

from cifar_mlflow.analysis.comparison import wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison, Row
from cifar_mlflow.analysis.statistics import MeanInterval
from cifar_mlflow.records import RunRecord

WIDTH = 100


def to_table(comparison: Comparison) -> str:
    """Aligned plain text; where the parameters do not fit in 100 columns, they move to a numbered list below."""
    headers, rows = _cells(comparison)
    parameters = len(comparison.columns)
    lines = _aligned(headers, rows)
    legend: list[str] = []
    if parameters and max(map(len, lines)) > WIDTH:
        numbered = [[str(place), *cells[parameters:]] for place, cells in enumerate(rows, 1)]
        lines = _aligned(["#", *headers[parameters:]], numbered)
        legend = [
            "",
            *(
                _wrapped(f"#{place} {wording.label(row, comparison.columns)}", "   ")
                for place, row in enumerate(comparison.rows, 1)
            ),
        ]
    title = [f"{comparison.objective}, {wording.count(len(comparison.rows), 'configuration')}", ""]
    notes = ["", *(_wrapped(note, "  ") for note in wording.notes(comparison))]
    return "\n".join([*title, *(lines if rows else ["no run to compare"]), *legend, *notes]) + "\n"


def to_markdown(comparison: Comparison) -> str:
    """A table and a list of notes."""
    headers, rows = _cells(comparison)
    parameters = len(comparison.columns)
    numeric = headers.index("verdict") if "verdict" in headers else len(headers)
    marks = ["---:" if parameters <= place < numeric else "---" for place in range(len(headers))]
    table = [_markdown_row(cells) for cells in (headers, marks, *rows)] if rows else []
    notes = [f"- {_markdown_text(note)}" for note in wording.notes(comparison)]
    return "\n".join([f"**{_markdown_text(comparison.objective)}**", "", *table, "", *notes]) + "\n"


def to_csv(comparison: Comparison) -> str:
    """One line a configuration; runs that are not compared follow with n = 0 and the reason as their verdict."""
    # A parameter may be called like a column of ours ("n"), so its name says what it is.
    names = [f"parameter:{name}" for name in comparison.columns]
    fields = ["n", "mean", "sd", "low", "high", "min", "max", "minutes", "verdict", "difference", "p"]
    fields += ["test_mean", "test_n", "reported", "seeds", "run_ids"]
    output = io.StringIO()
    writer = csv.DictWriter(output, [*names, *fields], lineterminator="\n", restval="")
    writer.writeheader()
    for row in comparison.rows:
        cells = {f"parameter:{name}": row.parameters.get(name, "") for name in comparison.columns}
        values = {name: _rounded(value) for name, value in _summary(row).items()}
        test = {"test_mean": _rounded(row.test.mean), "test_n": row.test.n} if row.test else {}
        lists = {
            "reported": " ".join(f"{value:g}" for value in row.reported),
            "seeds": " ".join(str(run.seed) for run in row.runs),
            "run_ids": " ".join(run.run_id for run in row.runs),
        }
        writer.writerow({**cells, **values, **test, **lists, "verdict": row.verdict.kind})
    for apart in comparison.apart:
        for run in apart.runs:
            cells = {f"parameter:{name}": run.parameters.get(name, "") for name in comparison.columns}
            writer.writerow({**cells, "n": 0, "verdict": apart.reason, "seeds": run.seed, "run_ids": run.run_id})
    return output.getvalue()


def to_json(comparison: Comparison) -> str:
    """Everything, for programs."""
    document = {
        "objective": comparison.objective,
        "difference": comparison.difference,
        "replication": comparison.replication,
        "columns": comparison.columns,
        "common": comparison.common,
        "configurations": [
            {
                "parameters": row.parameters,
                **_summary(row),
                "verdict": row.verdict.kind,
                "test": _interval(row.test) if row.test else None,
                "reported": row.reported,
                "runs": [_run(run, value) for run, value in zip(row.runs, row.values, strict=True)],
                "repeated_seeds": {seed: [run.run_id for run in runs] for seed, runs in row.repeats.items()},
            }
            for row in comparison.rows
        ],
        "not_compared": [
            {"reason": apart.reason, "runs": [{"run_id": run.run_id, "name": run.name} for run in apart.runs]}
            for apart in comparison.apart
        ],
        "models": [
            {
                "best": test.best.run_id,
                "other": test.other.run_id,
                "images": test.images,
                "best_accuracy": test.best_accuracy,
                "other_accuracy": test.other_accuracy,
                "only_best": test.only_best,
                "only_other": test.only_other,
                "p": test.p,
            }
            for test in comparison.model_tests
        ],
        "spread": vars(comparison.spread) if comparison.spread else None,
        "test_evaluations": comparison.test_evaluations,
        "reported_unmatched": [vars(entry) for entry in comparison.unmatched],
        "notes": wording.notes(comparison),
    }
    return json.dumps(document, indent=2, default=str, allow_nan=False) + "\n"


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The table that people read: headers and cells as text; a column that no row fills is left out."""
    objective = comparison.objective
    columns: list[tuple[str, bool, Callable[[Row], str]]] = [
        ("n", True, lambda row: str(row.summary.n)),
        ("mean", True, lambda row: wording.number(row.summary.mean, objective)),
        ("95% interval", True, lambda row: wording.interval(row, objective)),
        ("min", True, lambda row: wording.number(min(row.values), objective)),
        ("max", True, lambda row: wording.number(max(row.values), objective)),
        ("minutes", any(row.minutes is not None for row in comparison.rows), lambda row: wording.minutes(row)),
        ("test", any(row.test for row in comparison.rows), wording.test),
        ("reported", any(row.reported for row in comparison.rows), wording.reported),
        ("verdict", not comparison.replication, lambda row: wording.verdict(row.verdict, objective)),
    ]
    shown = [(header, text) for header, show, text in columns if show]
    headers = [*comparison.columns, *(header for header, _ in shown)]
    return headers, [
        [*(wording.cell(row.parameters, name) for name in comparison.columns), *(text(row) for _, text in shown)]
        for row in comparison.rows
    ]


def _aligned(headers: list[str], rows: list[list[str]]) -> list[str]:
    """Text to the left, numbers to the right; headers break at blanks and underscores to keep columns narrow."""
    broken = [re.sub(r"(?<=[ _])", "\n", header).split("\n") for header in headers]
    height = max(map(len, broken))
    head = [
        [part.rstrip() for part in level] for level in zip(*(_padded(parts, height) for parts in broken), strict=True)
    ]
    widths = [max(len(line[place]) for line in (*head, *rows)) for place in range(len(headers))]
    right = [all(_is_number(cells[place]) for cells in rows) for place in range(len(headers))]
    return [
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (*head, ["-" * width for width in widths], *rows)
    ]


def _padded(parts: list[str], height: int) -> list[str]:
    return [""] * (height - len(parts)) + parts


def _is_number(text: str) -> bool:
    return text == wording.MISSING or text[:1].isdigit() or (text[:1] in "-." and text[1:2].isdigit())


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown_text, cells))} |"


def _markdown_text(text: str) -> str:
    """User-supplied text must neither break the table nor act as markup."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", " ".join(text.split()))


def _interval(summary: MeanInterval) -> dict[str, float | None]:
    return {"n": summary.n, "mean": summary.mean, "sd": summary.sd, "low": summary.low, "high": summary.high}


def _summary(row: Row) -> dict[str, float | None]:
    extremes = {"min": min(row.values), "max": max(row.values), "minutes": row.minutes}
    return {**_interval(row.summary), **extremes, "difference": row.verdict.difference, "p": row.verdict.p}


def _run(run: RunRecord, value: float) -> dict[str, object]:
    return {"run_id": run.run_id, "name": run.name, "seed": run.seed, "value": value, "url": run.url}


def _rounded(value: float | None) -> str:
    """Six significant digits: enough for any use, without the noise of binary fractions."""
    return "" if value is None else f"{value:.6g}"
