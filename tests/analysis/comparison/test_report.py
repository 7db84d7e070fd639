from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest

from cifar_mlflow.analysis.comparison import svg as figures
from cifar_mlflow.analysis.comparison.report import to_html
from cifar_mlflow.analysis.comparison.verdicts import Comparison, compare
from cifar_mlflow.records import RunRecord

MakeRun = Callable[..., RunRecord]

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Tags with their attributes, and the text, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def with_class(self, name: str) -> int:
        return sum(name in (attributes.get("class") or "").split() for _, attributes in self.tags)


def sweep(make_run: MakeRun, configurations: int = 3, seeds: int = 3) -> list[RunRecord]:
    return [
        make_run(
            curve[-1][1],
            seed,
            parameters={"activation": f"act{number}", "dropout": number / 10, "validation_size": 5000},
            curves={"val_accuracy": curve},
            url=f"http://tracking/runs/{number}/{seed}",
        )
        for number in range(configurations)
        for seed in range(seeds)
        for curve in [[(epoch, 70.0 + epoch + seed / 10 - number) for epoch in (1, 2, 3)]]
    ]


def svgs(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


@pytest.fixture
def comparison(make_run: MakeRun) -> Comparison:
    return compare(sweep(make_run), reported=[{"dropout": 0.1, "accuracy": [71.5]}])


def test_each_of_a_few_epochs_is_marked_on_the_axis(comparison: Comparison) -> None:
    _, curves, _ = svgs(to_html(comparison))
    texts = [element.text for element in curves.iter() if element.text]
    assert texts[texts.index("epoch") - 3 : texts.index("epoch")] == ["1", "2", "3"]


def test_page_has_every_section(comparison: Comparison) -> None:
    page = Page(to_html(comparison, "Activation"))
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == ["table", "intervals", "curves", "parallel", "notes"]
    assert "Best: activation act0, dropout 0, with 73.10" in page.text
    assert "t-tests with moderated variances" in page.text
    assert "worse by 2.00" in page.text
    assert "validation_size" in page.text
    assert page.text.count("Activation") == 2


def test_runs_are_linked(comparison: Comparison) -> None:
    links = [attributes["href"] for tag, attributes in Page(to_html(comparison)).tags if tag == "a"]
    assert sorted(filter(None, links)) == [f"http://tracking/runs/{n}/{seed}" for n in range(3) for seed in range(3)]


def test_figures_show_every_configuration(comparison: Comparison) -> None:
    forest, curves, parallel = svgs(to_html(comparison))
    page = Page(to_html(comparison))
    assert page.with_class("interval") == page.with_class("line") == page.with_class("band") == 3
    assert page.with_class("run") == 9
    assert page.with_class("reported") == 1
    assert page.with_class("path") == 3
    assert page.with_class("axis") == 3
    width = float((forest.get("viewBox") or "").split()[2])
    for svg in (forest, curves, parallel):
        coordinates = [float(value) for node in svg.iter() for key, value in node.items() if key in {"x1", "x2", "cx"}]
        assert coordinates
        assert all(0 <= value <= width for value in coordinates)


def test_interval_is_drawn_where_its_values_are(comparison: Comparison) -> None:
    """The dot lies in the middle of the bar, and a better configuration further to the right."""
    (forest, _, _) = svgs(to_html(comparison))
    space = "{http://www.w3.org/2000/svg}"
    dots = [float(node.get("cx", "")) for node in forest.iter(f"{space}circle")]
    bars = [node for node in forest.iter(f"{space}line") if node.get("class") == "interval"]
    middles = [(float(bar.get("x1", "")) + float(bar.get("x2", ""))) / 2 for bar in bars]
    assert dots == pytest.approx(middles, abs=0.2)
    assert dots == sorted(dots, reverse=True)


def test_user_text_is_escaped(make_run: MakeRun) -> None:
    runs = [
        make_run(
            70.0 + seed, seed, name=HOSTILE, url='http://x/"><script>', parameters={HOSTILE: value, "common": HOSTILE},
            curves={"val_accuracy": [(1, 1.0), (2, 2.0)]},
        )
        for value in (HOSTILE, "plain") for seed in (0, 1, 1)
    ]  # fmt: skip
    runs.append(make_run(None, status="FAILED", name=HOSTILE))
    html = to_html(compare(runs, reported=[{HOSTILE: HOSTILE + "2", "accuracy": 1}]), HOSTILE)
    page = Page(html)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in page.text
    assert len(svgs(html)) == 3


def test_addresses_that_would_run_code_are_no_links(make_run: MakeRun) -> None:
    html = to_html(compare([make_run(url="javascript:alert(1)"), make_run(seed=1, url=None)]))
    assert "javascript" not in html
    assert not [tag for tag, _ in Page(html).tags if tag == "a"]


def test_page_needs_no_network(comparison: Comparison) -> None:
    html = to_html(comparison)
    assert "default-src 'none'" in html
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in Page(html).tags}
    assert not re.findall(r"url\((?!#)|@import", html)


def test_only_as_many_colours_as_can_be_told_apart(make_run: MakeRun) -> None:
    html = to_html(compare(sweep(make_run, configurations=70, seeds=2)))
    page = Page(html)
    assert page.with_class("band") == figures.COLOURS
    assert page.with_class("line") == 70
    assert page.with_class("interval") == figures.FOREST_ROWS
    assert "The first 60 of 70 rows; the table has all." in html
    assert "62 others" in html


def test_single_runs_are_hollow_and_have_no_interval(make_run: MakeRun) -> None:
    page = Page(to_html(compare(sweep(make_run, seeds=1))))
    assert page.with_class("hollow") == 3
    assert page.with_class("interval") == 0
    assert page.text.count("one run: no interval") >= 3
    assert "Too few repeats to name a best" in page.text


def test_replication_names_no_winner(make_run: MakeRun) -> None:
    runs = [
        make_run(metrics={"epoch_test_accuracy": 77.0 + seed}, seed=seed, parameters={"a": a, "validation_size": 0})
        for a in (1, 2) for seed in (0, 1)
    ]  # fmt: skip
    page = Page(to_html(compare(runs)))
    assert "No winner is named" in page.text
    assert "Best:" not in page.text
    assert page.with_class("reference") == 0


def test_missing_parts_are_said(make_run: MakeRun) -> None:
    html = to_html(compare([make_run()]))
    assert "No run has val_accuracy by epoch." in html
    assert "No parameter differs" in html
    empty = to_html(compare([make_run(None, status="FAILED", name="broken")]))
    assert "No finished run to compare." in empty
    assert "broken" in empty


def test_parameters_of_any_kind_have_their_place(make_run: MakeRun) -> None:
    generator = np.random.default_rng(0)
    runs = [
        make_run(
            70.0 + n, parameters={"lr": 10 ** generator.uniform(-5, 0), "n": n % 3, "on": n % 2 == 0, "m": [n, None]}
        )
        for n in range(30)
    ]
    comparison = compare([*runs, make_run(parameters={"lr": 0.1})])
    _, parallel = svgs(to_html(comparison))
    lines = [node for node in parallel.iter() if node.get("class") == "path"]
    assert len(lines) == 31
    heights = [float(point.split(",")[1]) for line in lines for point in line.get("points", "").split()]
    assert min(heights) >= 34
    assert max(heights) <= 300
