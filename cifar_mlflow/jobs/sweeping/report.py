"""What a sweep leaves behind at its parent run: table, figures, report, and a winner if there can be one."""

import json
from dataclasses import dataclass
from pathlib import Path

from cifar_mlflow.analysis import plots
from cifar_mlflow.analysis.comparison import formats, report, verdicts, wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison
from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.jobs.sweeping.parts import Parts
from cifar_mlflow.records import RunRecord
from cifar_mlflow.text import count
from cifar_mlflow.tracking.reading import sweeps
from cifar_mlflow.tracking.writing.recorder import Recorder

NOTHING_FINISHED = "No run has finished, so there is no winner."


@dataclass(frozen=True)
class Winner:
    """The configuration on top: `text` names it by the parameters that vary, and says with which certainty.

    `run_id` is its run with the first seed: not the best of its seeds, which would be chosen by luck.
    """

    run_id: str
    text: str


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep came to: its runs so far, how many of them failed or were pruned, how many a budget has left."""

    run_id: str
    leaderboard: str
    experiment: str
    runs: int
    failed: int
    pruned: int
    left: int
    comparison: Comparison
    winner: Winner | None


@dataclass(frozen=True)
class PartOutcome:
    """What a part came to that did not end last: its runs, how many of them failed, and what `lacks` until the table.

    `run_id` is the sweep's parent; None if the part was run offline, and is kept in `spool`.
    """

    parts: Parts
    experiment: str
    runs: int
    failed: int
    run_id: str | None = None
    lacks: tuple[str, ...] = ()
    spool: Path | None = None


def publish(
    parent: Recorder, spec: SweepConfig, records: list[RunRecord], importances: dict[str, float]
) -> tuple[Comparison, Winner | None]:
    """Compares the runs, writes what came of it to the parent, and returns it."""
    # A replication's objective is found by the comparison itself, which refuses test metrics by name.
    compared = verdicts.compare(records, objective=spec.objective)
    title, metric = f"Sweep {spec.name}", verdicts.curve_metric(compared.objective)
    curves = [(wording.label(row, compared.columns), row.curve(metric)) for row in compared.rows]
    files = {
        "results.csv": formats.to_csv(compared).encode(),
        "results.json": formats.to_json(compared).encode(),
        "report.html": report.to_html(compared, title).encode(),
        "curves.png": plots.sweep_curves(curves, metric, title),
    }
    if importances:
        files["importances.json"] = json.dumps(importances, indent=2).encode()
        files["importances.png"] = plots.importances(importances, f"{title}: what {spec.objective} depends on")
    parent.log_files(files)
    winner = _winner(compared)
    none = "A replication on the test set: a table, and no winner." if compared.replication else NOTHING_FINISHED
    verdict = f"Winner: {winner.text}." if winner else none
    chosen = {sweeps.WINNER_TAG: winner.run_id} if winner else {}
    parent.set_tags({"mlflow.note.content": f"Sweep of {', '.join(spec.space)}. {verdict}"[:5000], **chosen})
    return compared, winner


def _winner(compared: Comparison) -> Winner | None:
    if compared.replication or not compared.rows:
        return None
    row = compared.best or compared.rows[0]
    mean = wording.number(row.summary.mean, compared.objective)
    certainty = "(one run: no interval, so nothing is known of its luck)"
    if row.judged_by_luck:
        certainty = "(one run, by which successive halving chose it: a lucky one)"
    if row.summary.n > 1:
        certainty = f"(95% interval {wording.interval(row.summary, compared.objective)}, n={row.summary.n})"
        equal = sum(other.verdict.kind == "not distinguishable" for other in compared.rows)
        certainty += f"; {count(equal, 'other')} cannot be told apart from it" if equal else ""
    text = f"{wording.label(row, compared.columns)}: {compared.objective} {mean} {certainty}"
    return Winner(row.runs[0].run_id, text)
