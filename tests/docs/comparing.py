"""What a page shows held against what was printed, less what is another elsewhere or at another time."""

from __future__ import annotations

import re

RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")
ELIDED = "..."


def normalized(line: str) -> str:
    """The line without what is another on another machine, or at another time."""
    line = re.sub(r"(sqlite:///)?(/[\w.@~-]+){2,}/?", "PATH", RUN_ID.sub("ID", line))
    line = re.sub(r"\d[\d,.:e+–-]*", "0", line)
    return re.sub(r"-{3,}", "---", " ".join(line.split()))


def is_fixed(line: str) -> bool:
    """Whether the line says the same wherever and whenever it is printed."""
    return bool(line.strip(" -")) and line != ELIDED and not re.search(r"\d|/", line)


def difference(shown: list[str], printed: list[str], *, varies: bool) -> str | None:
    """How what was printed is not what is shown; None if it is."""
    if varies:
        left = iter([" ".join(line.split()) for line in printed])
        missing = [line for line in shown if is_fixed(line) and " ".join(line.split()) not in left]
        return f"is not printed, or not in this order: {missing[0]!r}" if missing else None
    parts = ["(?:.*\n)*" if line == ELIDED else f"{re.escape(normalized(line))}\n" for line in shown]
    text = "".join(f"{normalized(line)}\n" for line in printed)
    return None if re.fullmatch("".join(parts), text) else "shown is:\n" + "\n".join(shown)


def lines_of(printed: str) -> list[str]:
    return [line.rstrip() for line in printed.rstrip("\n").split("\n")] if printed.strip() else []


def printed_anew(shown: list[str], printed: list[str]) -> list[str]:
    """What was printed, with the same parts left out: as many lines stand before the first and after the last."""
    if ELIDED not in shown:
        return printed
    first, last = shown.index(ELIDED), len(shown) - 1 - shown[::-1].index(ELIDED)
    after = len(shown) - last - 1
    return [*printed[:first], ELIDED, *(printed[len(printed) - after :] if after else [])]
