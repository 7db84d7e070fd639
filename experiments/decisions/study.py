"""The study of the report's decisions: runs into results/runs.csv, and those into results/table.md and a picture.

    python experiments/decisions/study.py collect      # from the store (MLFLOW_TRACKING_URI): new finished runs
    python experiments/decisions/study.py              # the table and the picture anew

`collect` looks at the test set once for each new run, with the weights after its last epoch. The verdicts are those of
`cifar-mlflow compare` over the settings of one decision, by validation accuracy after the last epoch.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

import cifar_mlflow as cm
from cifar_mlflow.analysis import statistics
from cifar_mlflow.analysis.comparison import verdicts
from cifar_mlflow.analysis.comparison.verdicts import Comparison, Row
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.directories import write_whole
from cifar_mlflow.records import RunRecord
from cifar_mlflow.tables import markdown

HERE = Path(__file__).parent
RUNS, TABLE, PICTURE = (HERE / "results" / name for name in ("runs.csv", "table.md", "decisions.png"))
IMAGES = {"validation": 5000, "test": 10_000}
FIELDS = (
    "parameter", "value", "seed", "final_val_accuracy", "best_val_accuracy", "test_accuracy", "minutes", "commit",
    "precision", "threads", "machine",
)  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """One choice of the report: the value taken, and the accuracies it gives for each."""

    parameter: str
    chosen: object
    figures: Mapping[object, Sequence[float]]
    why: str = ""
    no_effect: str = ""


def read_decisions() -> tuple[list[Decision], list[float]]:
    """The decisions in the order of the file, and the accuracies of the final method."""
    read = yaml.safe_load((HERE / "reported.yaml").read_text())
    return [Decision(name, **each) for name, each in read["decisions"].items()], read["final"]


def read_runs() -> list[dict[str, str]]:
    with RUNS.open(newline="") as file:
        return list(csv.DictReader(file))


def collect() -> None:
    """Appends the finished runs of the decisions' sweeps that are not in the file yet."""
    from mlflow import MlflowClient

    client, rows = MlflowClient(), read_runs()
    known = {(row["parameter"], row["value"], row["seed"]) for row in rows}
    experiment = client.get_experiment_by_name("decisions")
    if experiment is None:
        sys.exit("the store has no experiment `decisions`: sweep the files beside this one first")
    for path in sorted(HERE.glob("*.yaml")):
        if not (space := yaml.safe_load(path.read_text()).get("space")):
            continue
        (parameter,) = space
        found = client.search_runs(
            [experiment.experiment_id],
            f"tags.sweep = 'decision-{path.stem}' and tags.kind = 'trial' and attributes.status = 'FINISHED'",
            max_results=1000,
            order_by=["attributes.start_time"],
        )
        for run in found:
            params, tags, metrics = run.data.params, run.data.tags, run.data.metrics
            # The final method is a value of every parameter.
            key = ("" if path.stem == "final" else parameter, params[parameter], params["seed"])
            if key in known:
                continue
            known.add(key)
            minutes = (run.info.end_time - run.info.start_time) / 60_000
            test = cm.evaluate(run.info.run_id).score.accuracy
            measured = [f"{value:.2f}" for value in (metrics["final_val_accuracy"], metrics["best_val_accuracy"], test)]
            circumstances = [tags["git_commit"][:7], tags["precision_used"], tags["threads_used"], tags["hardware"]]
            cells = [*key, *measured, f"{minutes:.1f}", *circumstances]
            rows.append(dict(zip(FIELDS, cells, strict=True)))
            print(" ".join(key), *measured)
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(RUNS, text.getvalue().encode())


def final_value(parameter: str) -> str:
    """What the final method sets: the value that the runs of final.yaml stand for."""
    return str(getattr(resolve(read_yaml(HERE.parent / "final.yaml")), parameter))


def compared(decision: Decision, runs: Sequence[Mapping[str, str]]) -> Comparison:
    """The settings of one decision, the final method among them, as `compare` judges them."""
    final = final_value(decision.parameter)
    records = [
        RunRecord(
            f"{place}", f"{place}", "FINISHED", int(run["seed"]),
            parameters={decision.parameter: run["value"] if run["parameter"] else final},
            metrics={name: float(run[name]) for name in ("final_val_accuracy", "test_accuracy")},
            minutes=float(run["minutes"]), images=IMAGES,
        )
        for place, run in enumerate(runs)
        if run["parameter"] in ("", decision.parameter)
    ]  # fmt: skip
    return verdicts.compare(records, with_test=True)


def answer(decision: Decision, comparison: Comparison) -> str:
    """Whether the report's choice holds, in the words of RESULTS.md."""
    if decision.no_effect:
        return f"had no effect: {decision.no_effect}"
    rows = {str(row.parameters[decision.parameter]): row for row in comparison.rows}
    chosen = rows.pop(str(decision.chosen))
    if chosen.summary.n < 2 or any(row.summary.n < 2 for row in rows.values()):
        return "cannot be told: one run a setting"
    if chosen.verdict.kind == "worse":
        best = next(value for value, row in rows.items() if row.verdict.kind == "best")
        return f"does not hold: {best} is better"
    p_values = against_chosen(decision, comparison)
    equal = [value for value in rows if p_values[value] >= verdicts.ALPHA]
    if not equal:
        return "holds"
    told = [value for value in rows if value not in equal]
    better = f"better than {', '.join(told)}; " if told else ""
    return f"{better}cannot be told from {', '.join(equal)}"


def against_chosen(decision: Decision, comparison: Comparison) -> dict[str, float]:
    """p-value of each setting against the report's choice, corrected for all pairs of the decision; NaN of one run."""
    values = [str(row.parameters[decision.parameter]) for row in comparison.rows]
    reference = values.index(final_value(decision.parameter) if decision.no_effect else str(decision.chosen))
    floor = statistics.rounding_variance(IMAGES["validation"])
    p_values = statistics.pairwise_tests([row.values for row in comparison.rows], floor)[reference]
    return dict(zip(values, p_values.tolist(), strict=True))


def interval(summary: statistics.MeanInterval) -> str:
    return f"{summary.low:.2f} to {summary.high:.2f}" if summary.low is not None else "-"


def tables(decisions: Sequence[Decision], runs: Sequence[Mapping[str, str]]) -> str:
    """The answer to each decision, and below it every setting, in Markdown."""
    answers, settings = [], []
    for decision in decisions:
        comparison = compared(decision, runs)
        reference = final_value(decision.parameter) if decision.no_effect else str(decision.chosen)
        figures = {str(value): each for value, each in decision.figures.items()}
        reported = ", ".join(f"{value} {' '.join(f'{x:.2f}' for x in each)}" for value, each in figures.items())
        spread = comparison.spread
        needed = str(spread.seeds_for_all_pairs) if spread else "-"
        answers.append([decision.parameter, str(decision.chosen), reported, answer(decision, comparison), needed])
        p_values = against_chosen(decision, comparison)
        mean = next(row.summary.mean for row in comparison.rows if str(row.parameters[decision.parameter]) == reference)
        for row in comparison.rows:
            value = str(row.parameters[decision.parameter])
            gap = row.summary.mean - mean
            p = p_values[value]
            against = "-" if value == reference else f"{gap:+.2f}" + (f" (p = {p:.3f})" if p == p else "")
            test = f"{row.test.mean:.2f}" if row.test else "-"
            settings.append([
                decision.parameter, value, str(row.summary.n), f"{row.summary.mean:.2f}", interval(row.summary), test,
                against.replace("p = 0.000", "p < 0.001"), row.verdict.kind, f"{row.minutes:.1f}",
            ])  # fmt: skip
    heads = ["decision", "chosen", "on these figures", "answer", "seeds for 0.5 points"]
    columns = [
        "decision",
        "setting",
        "n",
        "validation",
        "95% interval",
        "test",
        "against the chosen",
        "verdict",
        "minutes",
    ]
    return markdown(heads, answers, "llllr") + "\n\n" + markdown(columns, settings, "llrrlrllr") + "\n"


def picture(decisions: Sequence[Decision], final: Sequence[float], runs: Sequence[Mapping[str, str]]) -> bytes:
    """Every setting: mean and interval of its test accuracy, its runs as strokes, the report's figures as crosses."""
    from matplotlib.figure import Figure

    lines: list[tuple[str, Row, Sequence[float]]] = []
    of_method = [*final]  # the report's figures of what became the final method stand beside it
    for decision in decisions:
        figures = {str(value): each for value, each in decision.figures.items()}
        of_method += figures.pop(final_value(decision.parameter), ())
        for row in sorted(compared(decision, runs).rows, key=lambda row: row.summary.mean):
            value = str(row.parameters[decision.parameter])
            if value == final_value(decision.parameter):
                method = row
            else:
                lines.append((f"{decision.parameter} {value}", row, figures.get(value, ())))
    lines.append(("the final method", method, of_method))
    figure = Figure(figsize=(8, 0.27 * len(lines) + 1), layout="constrained", dpi=110)
    axes = figure.add_subplot(xlabel="test accuracy (%); cross: the report, one run on 9,984 of these images")
    for place, (_, row, reported) in enumerate(lines):
        tests = [float(run.metrics["test_accuracy"]) for run in row.runs]
        summary = statistics.mean_interval(tests)
        if summary.low is not None and summary.high is not None:
            axes.plot([summary.low, summary.high], [place, place], color="#1f6feb", linewidth=4, alpha=0.35)
        axes.plot(tests, [place] * len(tests), "|", color="#1f6feb")
        axes.plot(summary.mean, place, "o", color="#1f6feb", markersize=5)
        axes.plot(reported, [place] * len(reported), "x", color="#b3261e")
    axes.set_yticks(range(len(lines)), [name for name, _, _ in lines])
    axes.set_xlim(60, 85)  # beyond: figures of runs that broke (27.75 and 8.96)
    axes.grid(axis="x", alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


if __name__ == "__main__":
    if sys.argv[1:] == ["collect"]:
        collect()
    elif sys.argv[1:]:
        sys.exit(__doc__)
    decisions, final = read_decisions()
    runs = read_runs()
    write_whole(TABLE, tables(decisions, runs).encode())
    write_whole(PICTURE, picture(decisions, final, runs))
