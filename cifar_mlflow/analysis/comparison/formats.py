"""A comparison as text: a table for the terminal, CSV, JSON and Markdown."""

import json
import textwrap
from functools import partial

from cifar_mlflow import tables
from cifar_mlflow.analysis.comparison import wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison, Row
from cifar_mlflow.text import count

WIDTH = 100
_wrapped = partial(textwrap.fill, width=WIDTH, break_on_hyphens=False)


def to_table(comparison: Comparison) -> str:
    """Aligned plain text; where the parameters do not fit in 100 columns, they move to a numbered list below."""
    headings, rows, align = _cells(comparison)
    lines = tables.table(rows, align, headings, rule=True).split("\n") if rows else ["no run to compare"]
    parameters = len(comparison.columns)
    if parameters and max(map(len, lines)) > WIDTH:
        numbered = [[str(place), *cells[parameters:]] for place, cells in enumerate(rows, 1)]
        lines = tables.table(numbered, f"r{align[parameters:]}", ["#", *headings[parameters:]], rule=True).split("\n")
        lines.append("")
        for place, row in enumerate(comparison.rows, 1):
            lines.append(_wrapped(f"#{place} {wording.label(row, comparison.columns)}", subsequent_indent="   "))
    title = f"{comparison.objective}, {count(len(comparison.rows), 'configuration')}"
    notes = [_wrapped(note, subsequent_indent="  ") for note in wording.notes(comparison)]
    return "\n".join([title, "", *lines, "", *notes, ""])


def to_markdown(comparison: Comparison) -> str:
    """A table and a list of notes."""
    headings, rows, align = _cells(comparison)
    table = [tables.markdown(headings, rows, align)] if rows else []
    notes = [f"- {tables.markdown_text(note)}" for note in wording.notes(comparison)]
    return "\n".join([f"**{tables.markdown_text(comparison.objective)}**", "", *table, "", *notes, ""])


def to_csv(comparison: Comparison) -> str:
    """One line a configuration; runs that are not compared follow with n = 0 and the reason as their verdict."""
    fields = ["n", "mean", "sd", "low", "high", "min", "max", "minutes", "verdict", "difference", "p"]
    fields += ["test_mean", "test_n", "reported", "seeds", "run_ids"]

    def parameters(values: dict[str, object]) -> dict[str, object]:
        # A parameter may be called like a column of ours ("n"), so its name says what it is.
        return {f"parameter:{name}": values.get(name, "") for name in comparison.columns}

    lines: list[dict[str, object]] = []
    for row in comparison.rows:
        # Six significant digits are enough for any use, without the noise of binary fractions.
        values = {**_summary(row), **({"test_mean": row.test.mean, "test_n": row.test.n} if row.test else {})}
        rounded = {name: "" if value is None else f"{value:.6g}" for name, value in values.items()}
        lists = {
            "reported": " ".join(f"{value:g}" for value in row.reported),
            "seeds": " ".join(str(run.seed) for run in row.runs),
            "run_ids": " ".join(run.run_id for run in row.runs),
        }
        lines.append({**parameters(row.parameters), **rounded, **lists, "verdict": row.verdict.kind})
    for reason, runs in comparison.excluded.items():
        told = {"n": 0, "verdict": reason}
        lines += [{**parameters(run.parameters), **told, "seeds": run.seed, "run_ids": run.run_id} for run in runs]
    columns = [*parameters({}), *fields]
    return tables.csv_lines([columns, *([line.get(column, "") for column in columns] for line in lines)])


def to_json(comparison: Comparison) -> str:
    """Everything, for programs."""
    document = {
        **{name: getattr(comparison, name) for name in ("objective", "difference", "replication", "columns", "common")},
        "configurations": [
            {
                "parameters": row.parameters,
                **_summary(row),
                "verdict": row.verdict.kind,
                "test": vars(row.test) if row.test else None,
                "reported": row.reported,
                "runs": [
                    {"run_id": run.run_id, "name": run.name, "seed": run.seed, "value": value, "url": run.url}
                    for run, value in zip(row.runs, row.values, strict=True)
                ],
                "chosen_by_seed": [run.run_id for run in row.chosen_by],
                "repeated_seeds": {seed: [run.run_id for run in runs] for seed, runs in row.repeats.items()},
            }
            for row in comparison.rows
        ],
        "not_compared": [
            {"reason": reason, "runs": [{"run_id": run.run_id, "name": run.name} for run in runs]}
            for reason, runs in comparison.excluded.items()
        ],
        "models": [
            {**vars(test), "best": test.best.run_id, "other": test.other.run_id} for test in comparison.model_tests
        ],
        "spread": vars(comparison.spread) if comparison.spread else None,
        "test_evaluations": comparison.test_evaluations,
        "reported_unmatched": list(map(vars, comparison.unmatched)),
        "notes": wording.notes(comparison),
    }
    return json.dumps(document, indent=2, default=str, allow_nan=False) + "\n"


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]], str]:
    """Headings, cells and alignment of the table that people read: numbers stand to the right."""
    rows, names, columns = comparison.rows, comparison.columns, wording.columns(comparison)
    cells = [
        [*(wording.cell(row.parameters, name) for name in names), *(text(row) for _, text in columns)] for row in rows
    ]
    numeric = [all(type(row.parameters.get(name, 0)) in (int, float) for row in rows) for name in names]
    numeric += [heading != "verdict" for heading, _ in columns]
    return [*names, *(heading for heading, _ in columns)], cells, "".join("r" if each else "l" for each in numeric)


def _summary(row: Row) -> dict[str, float | None]:
    extremes = {"min": min(row.values), "max": max(row.values), "minutes": row.minutes}
    return {**vars(row.summary), **extremes, "difference": row.verdict.difference, "p": row.verdict.p}
