"""Tables as text: aligned for a terminal, as Markdown, or as CSV."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

from cifar_mlflow.text import plain


def table(
    rows: Sequence[Sequence[str]], align: str, headings: Sequence[str] = (), *, rule: bool = False, wrap: int = 0
) -> str:
    """Aligned plain text with two blanks between columns; `align` has an l (left) or r (right) for each column.

    Control characters in cells become blanks. `rule` breaks headings at blanks and underscores, which keeps columns
    narrow, and draws a line below them. `wrap` is the most characters in a line of the last column, 0 for no limit;
    words are kept whole, so that commands can be copied.
    """
    from tabulate import SEPARATING_LINE, tabulate

    headings = list(map(plain, headings))
    head, cells = [headings] if headings else [], [[plain(cell) for cell in row] for row in rows]
    if rule:
        broken = [re.sub(r"(?<=_)(?=.)| ", "\n", heading).split("\n") for heading in headings]
        height = max(map(len, broken))
        levels = zip(*([""] * (height - len(parts)) + parts for parts in broken), strict=True)
        head = [*map(list, levels), [SEPARATING_LINE]]
    # Headings are given as a row, since tabulate makes columns wider than its headings.
    text = tabulate(
        head + cells,
        tablefmt="simple" if rule else "plain",
        disable_numparse=True,
        colalign=[{"l": "left", "r": "right"}[side] for side in align],
        maxcolwidths=[None] * (len(align) - 1) + [wrap or None],
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(text.split("\n")[1:-1]) if rule else text


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A Markdown table whose cells can neither break it nor act as markup; `align` as in `table`."""
    marks = " | ".join({"l": "---", "r": "---:"}[side] for side in align)
    head, *body = (f"| {' | '.join(map(markdown_text, row))} |" for row in (headings, *rows))
    return "\n".join([head, f"| {marks} |", *body])


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV, each in a line of its own; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def markdown_text(text: str) -> str:
    """`text` in one line, without a meaning in Markdown or HTML."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", " ".join(text.split()))
