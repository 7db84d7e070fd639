"""A comparison as one self-contained HTML page: no script, no network, light and dark."""

from __future__ import annotations

from importlib import resources
from urllib.parse import urlsplit

from cifar_mlflow.analysis.comparison import svg, wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison, Row
from cifar_mlflow.records import RunRecord


def to_html(comparison: Comparison, title: str = "Comparison of runs") -> str:
    """The page: headline, table with verdicts and links to the runs, figures, notes. All text is escaped."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals.update(
        cell=wording.cell,
        count=wording.count,
        interval=wording.interval,
        label=wording.label,
        number=wording.number,
        parameter=wording.parameter,
        reported=wording.reported,
        test=wording.test,
        minutes=wording.minutes,
        verdict=wording.verdict,
        colour=svg.colour,
        link=_link,
    )
    template = environment.from_string(resources.files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    return template.render(
        title=title,
        comparison=comparison,
        headline=_headline(comparison),
        notes=wording.notes(comparison),
        metric=svg.curve_metric(comparison.objective),
        # The figures have escaped what they draw.
        forest=Markup(svg.forest_plot(comparison)) if comparison.rows else "",
        curves=Markup(svg.curves(comparison)),
        parallel=Markup(svg.parallel_coordinates(comparison)),
        forest_rows=svg.FOREST_ROWS,
        coloured=svg.COLOURS,
        timed=any(row.minutes is not None for row in comparison.rows),
        tested=any(row.test for row in comparison.rows),
        published=any(row.reported for row in comparison.rows),
    )


def _headline(comparison: Comparison) -> str:
    rows = comparison.rows
    if not rows:
        return "No finished run to compare."
    runs = wording.count(sum(row.summary.n for row in rows), "run")
    size = f"{wording.count(len(rows), 'configuration')}, {runs}"
    if comparison.replication:
        return f"A replication: {size}. No winner is named, since these accuracies are of the test set."
    best = next((row for row in rows if row.verdict.kind == "best"), None)
    if best is None:
        return f"{size}. Too few repeats to name a best."
    return f"{size}. Best: {_described(best, comparison)}. {_rivals(rows)}"


def _described(row: Row, comparison: Comparison) -> str:
    mean = wording.number(row.summary.mean, comparison.objective)
    return (
        f"{wording.label(row, comparison.columns)}, with {mean} "
        f"({wording.interval(row, comparison.objective)}, {row.summary.n} seeds)"
    )


def _rivals(rows: tuple[Row, ...]) -> str:
    kinds = [row.verdict.kind for row in rows]
    equal, worse, single = (kinds.count(kind) for kind in ("not distinguishable", "worse", "one run"))
    said = [f"{equal} not distinguishable from it"] if equal else []
    said += [f"{worse} worse"] if worse else []
    said += [f"{single} with one run only"] if single else []
    return f"Of the others, {', '.join(said)}."


def _link(run: RunRecord) -> str | None:
    """The run's address, if a browser may follow it: an address such as javascript: would run in the page."""
    return run.url if run.url and urlsplit(run.url).scheme in {"http", "https"} else None
