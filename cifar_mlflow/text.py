"""Words that users give, and words that they are shown."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

NAME_LIMIT = 250  # characters of a name that every store keeps
REASON_LIMIT = 2000
PATH_LIMIT = 4096


def redact(text: str) -> str:
    """`text` without the user name and password of any URI in it."""
    return re.sub(r"(?<=://)[^/\s]*@", "***@", text)


def plain(text: str) -> str:
    """`text` with a blank for each line break and control character, which would upset a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def fault(text: str, limit: int, allowed: str = "") -> str | None:
    """Why no store, file or terminal can be trusted with `text`; None if they can.

    Refused are more than `limit` characters, control characters that are not `allowed`, and what is no valid Unicode.
    """
    if len(text) > limit:
        return f"it has {len(text):,} characters; at most {limit:,} are allowed"
    for character in text:
        # Cc are control characters, Cs halves of characters, as bytes become that are not UTF-8.
        if unicodedata.category(character) in ("Cc", "Cs") and character not in allowed:
            kind = "a control character" if ord(character) < 256 else "no valid Unicode"
            return f"it contains {character!r}, which is {kind}"
    return None


def shown(text: str) -> str:
    """`text` as a message names it: whole if it is short, quoted in any case."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def printable(name: str) -> str:
    """The name of a file as one line can hold it: line breaks and bytes that are no text are escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def whole_number(text: str | None, otherwise: int) -> int:
    """The number that a tag tells; `otherwise` if there is none, or another hand has made no number of it."""
    return int(text) if text and text.isdecimal() and len(text) < 10 else otherwise


def count(number: int, noun: str) -> str:
    """1 run, 2 runs, 1,000 runs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """The first line of the error's message that says something, redacted, and cut if it is long; else its type."""
    try:
        text = str(error)
    except Exception:  # of an error of a user's own class
        text = ""
    lines = [line for line in map(str.strip, text.splitlines()) if line] or [type(error).__name__]
    # MLflow announces each file that it could not copy, and then says why.
    while len(lines) > 1 and (lines[0].endswith(":") or lines[1].startswith("##### File")):
        lines[:2] = [f"{lines[0]} {lines[1].strip('# ')}{':' if lines[1].startswith('#####') else ''}"]
    # What is cut in the middle of a URI could not be redacted any more.
    line = redact(lines[0])
    return line if len(line) <= 300 else f"{line[:300]}..."


def option_name(field: str) -> str:
    """The option of a field: --learning-rate for learning_rate."""
    return f"--{field.replace('_', '-')}"


def as_option(value: object) -> str:
    """`value` as a person would type it: true, 15,25, 0.002."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value)


def duration(seconds: float) -> str:
    """1 h 05 min, 12 min, 40 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint at what of `known` is most like `word`, with `prefix` before it; empty if nothing is."""
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {prefix}{match[0]}?)" if match else ""
