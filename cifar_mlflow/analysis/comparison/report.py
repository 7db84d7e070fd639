"""A comparison as one self-contained HTML page: no script, no network, light and dark."""

from urllib.parse import urlsplit

from cifar_mlflow.analysis.comparison import svg, wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison, curve_metric
from cifar_mlflow.records import RunRecord
from cifar_mlflow.text import count


def to_html(comparison: Comparison, title: str = "Comparison of runs") -> str:
    """The page: headline, table with verdicts and links to the runs, figures, notes. All text is escaped."""
    import jinja2

    loader = jinja2.PackageLoader("cifar_mlflow.analysis.comparison", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    functions = (count, svg.colour, wording.cell, wording.label, wording.number, wording.parameter, wording.verdict)
    environment.globals.update({each.__name__: each for each in functions}, coloured=svg.COLOURS, link=_link)
    return environment.get_template("report.html.j2").render(
        title=title,
        comparison=comparison,
        columns=wording.columns(comparison),
        headline=_headline(comparison),
        notes=wording.notes(comparison),
        metric=curve_metric(comparison.objective),
        forest=svg.forest_plot(comparison) if comparison.rows else None,
        curves=svg.curves(comparison),
        parallel=svg.parallel_coordinates(comparison),
        forest_rows=svg.FOREST_ROWS,
    )


def _headline(comparison: Comparison) -> str:
    rows, best = comparison.rows, comparison.best
    if not rows:
        return "No finished run to compare."
    size = f"{count(len(rows), 'configuration')}, {count(sum(row.summary.n for row in rows), 'run')}"
    if comparison.replication:
        return f"A replication: {size}. No winner is named, since these accuracies are of the test set."
    if best is None:
        return f"{size}. Too few repeats to name a best."
    kinds = [row.verdict.kind for row in rows]
    said = {"not distinguishable": "not distinguishable from it", "worse": "worse", "one run": "with one run only"}
    others = ", ".join(f"{kinds.count(kind)} {text}" for kind, text in said.items() if kind in kinds)
    mean = wording.number(best.summary.mean, comparison.objective)
    interval, name = wording.interval(best.summary, comparison.objective), wording.label(best, comparison.columns)
    told = f"{size}. Best: {name}, with {mean} ({interval}, {count(best.summary.n, 'seed')})."
    return f"{told} Of the others, {others}." if others else told


def _link(run: RunRecord) -> str | None:
    """The run's address, if a browser may follow it: an address such as javascript: would run in the page."""
    return run.url if run.url and urlsplit(run.url).scheme in {"http", "https"} else None
