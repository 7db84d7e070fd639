"""What pydantic refuses, told in the words of this package."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from cifar_mlflow.text import did_you_mean, shown


class Sentence(ValueError):
    """What a validator raises whose message is to be told as it is, without the value that was given."""


def expected(what: str, hint: Callable[[str], str] = lambda value: "") -> WrapValidator:
    """Annotates a field: whatever it refuses "must be `what`", and `hint` adds what was meant.

    True, which would count as 1, is refused as well.
    """

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            if not isinstance(value, bool):
                return validate(value)
        except ValidationError:
            pass
        raise ValueError(what + hint(str(value)))

    return WrapValidator(check)


def describe(
    error: ValidationError,
    values: Mapping[str, Any],
    named: Callable[[Sequence[str]], str],
    unknown: Callable[[Sequence[str]], str] = lambda path: "there is no such key",
) -> dict[tuple[str, ...], str]:
    """One message for each key of `values` that is refused, by the path of keys that leads to it.

    `named` gives a path as the user writes it; `unknown` says of a path that there is no such key.
    """
    found: dict[tuple[str, ...], str] = {}
    for entry in error.errors(include_url=False):
        path: list[str] = []
        given: Any = values
        for part in entry["loc"]:
            if isinstance(given, Mapping):
                path.append(str(part))
                given = given.get(str(part))
        told = unknown(path) if entry["type"] == "extra_forbidden" else _told(entry, given)
        found.setdefault(tuple(path), f"{named(path)}: {told}")
    return found


def _told(entry: Mapping[str, Any], given: object) -> str:
    value = shown(given) if isinstance(given, str) else repr(given)
    if isinstance(error := entry.get("ctx", {}).get("error"), Sentence):
        return str(error)
    if entry["type"] == "missing":
        return "it is missing"
    if entry["type"] == "literal_error":
        choices = re.findall(r"'([^']+)'", entry["ctx"]["expected"])
        return f"{value} is not one of {', '.join(choices)}{did_you_mean(str(given), choices)}"
    message = re.sub("^(Value error, )?(Input )?(should be )?", "", str(entry["msg"]))
    return f"{value} is refused: must {'' if message.startswith('not ') else 'be '}{message}"
