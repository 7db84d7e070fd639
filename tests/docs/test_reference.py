"""The reference says what the code says, and no link of a page leads nowhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = ROOT / "docs" / "reference"


def generator():
    spec = importlib.util.spec_from_file_location("generate", REFERENCE / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "page",
    [
        "commands.md",
        "commands-of-models.md",
        "exit-codes.md",
        "entry-points.md",
        "configuration.md",
        "python.md",
        "python-of-models.md",
    ],
)
def test_the_page_is_what_make_docs_writes(page):
    module = generator()
    written = {path.name for path in REFERENCE.glob("*.md") if module.NOTE in path.read_text()}
    assert written == set(module.PAGES)
    assert (REFERENCE / page).read_text() == module.PAGES[page](), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_its_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://", target):
            path, _, anchor = target.partition("#")
            place = (page.parent / path) if path else page
            assert place.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", place.read_text(), flags=re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, target


def test_no_page_is_longer_than_one_reads():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
    assert {page.name: lines for page in PAGES[1:] if (lines := len(page.read_text().splitlines())) > 300} == {}
