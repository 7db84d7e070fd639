"""README's figures are those that were measured, and the Korean README shows the same commands."""

from __future__ import annotations

import re

import pages
import pytest

ROOT = pages.ROOT
ENGLISH, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"
MEASURED = (ROOT / "experiments" / "RESULTS.md", ROOT / "docs" / "explanation" / "performance.md")
MOST_BYTES = 300_000


def results(page) -> list[list[str]]:
    """The cells of the table of results."""
    table = re.search(r"^\| .*\| n \|.*\n\| ---.*\n((?:\|.*\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[1].splitlines()]


def test_every_figure_of_the_results_was_measured():
    measured = "\n".join(path.read_text(encoding="utf-8") for path in MEASURED)
    rows = results(ENGLISH)
    assert len(rows) >= 4
    for what, _, *figures in rows:
        found = re.findall(r"\d[\d.-]*\d|[0-9a-f]{7}\b", " ".join(figures))
        assert found, what
        missing = [
            figure for figure in found if figure not in measured and not re.fullmatch(r"20\d\d-\d\d-\d\d", figure)
        ]
        assert not missing, f"{what}: {missing}"


def test_the_korean_readme_has_the_same_commands_and_figures():
    english, korean = ([(fence.language, fence.body) for fence in pages.fences(page)] for page in (ENGLISH, KOREAN))
    assert korean == english
    assert [row[2:5] + row[-1:] for row in results(KOREAN)] == [row[2:5] + row[-1:] for row in results(ENGLISH)]


def test_the_korean_readme_leads_to_the_same_places():
    def links(page):
        return set(re.findall(r"\]\(((?:docs|experiments)/[^)]+)\)", page.read_text(encoding="utf-8")))

    assert links(KOREAN) == links(ENGLISH)
    assert all((ROOT / link.partition("#")[0]).exists() for link in links(KOREAN))


@pytest.mark.parametrize("image", sorted((ROOT / "docs" / "images").glob("*.png")), ids=lambda path: path.name)
def test_images_are_small_and_shown_somewhere(image):
    assert image.stat().st_size <= MOST_BYTES
    shown = [page for page in (ENGLISH, *pages.pages()) if f"images/{image.name})" in page.read_text(encoding="utf-8")]
    assert shown, image.name
