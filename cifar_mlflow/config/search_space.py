"""The space of a sweep: what each parameter may be, and under which condition it matters at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cifar_mlflow.config.training import NOT_IN_FINGERPRINT, TrainingConfig, resolve
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import as_option, did_you_mean

_REASONS = {
    "seed": "repeats runs each configuration with several seeds",
    "threads": "it is set for the whole sweep, beside workers",
    "split_seed": "runs that hold out different images cannot be compared",
}


class Parameter(BaseModel):
    """Either `values`, or a range from `low` to `high` (in steps, or evenly on a logarithmic scale).

    `kind` follows from the field of TrainingConfig: a range of a whole-number field has whole numbers. With `when`,
    the parameter varies only where every other parameter named has one of the values given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    values: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    kind: Literal["choice", "integer", "number"] = "choice"
    when: dict[str, tuple[Any, ...]] = {}

    @property
    def is_countable(self) -> bool:
        return self.kind != "number" or self.step is not None

    def __len__(self) -> int:
        """The number of values; 1 for a range that cannot be counted."""
        if self.low is None or self.high is None:
            return len(self.values)
        return 1 + math.floor((self.high - self.low) / (self.step or 1) + 1e-9) if self.is_countable else 1

    def choices(self) -> Sequence[Any]:
        """Every value, lowest first; none for a range that cannot be counted."""
        if self.low is None:
            return self.values
        return _Steps(self) if self.is_countable else ()

    def probes(self) -> Iterator[Any]:
        """The values whose checks stand for all: each choice, or both ends of a range."""
        if self.low is None or self.high is None:
            yield from self.values
        else:
            yield self.cast(self.low)
            yield self.cast(self.high)

    def cast(self, value: float) -> float | int:
        return round(value) if self.kind == "integer" else float(f"{value:.12g}")

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition holds among the `values` chosen so far."""
        return all(
            name in values and as_option(values[name]) in map(as_option, wanted) for name, wanted in self.when.items()
        )

    def as_data(self) -> Any:
        """The parameter as it stands in a spec."""
        when = {name: list(wanted) for name, wanted in self.when.items()}
        if self.low is None:
            values = [list(value) if isinstance(value, tuple) else value for value in self.values]
            return {"values": values, "when": when} if when else values
        low, high = (self.cast(end) for end in (self.low, self.high or 0))
        data: dict[str, Any] = {"low": low, "high": high}
        data |= {"log": True} if self.log else {}
        data |= {"step": self.step} if self.step is not None else {}
        return data | ({"when": when} if when else {})


class _Steps(Sequence[Any]):
    """The values of a stepped range, made as they are asked for: there may be a million of them."""

    def __init__(self, parameter: Parameter) -> None:
        self._parameter = parameter

    def __len__(self) -> int:
        return len(self._parameter)

    def __getitem__(self, position: Any) -> Any:
        if position >= len(self):
            raise IndexError
        return self._parameter.cast((self._parameter.low or 0) + position * (self._parameter.step or 1))


def parse_parameter(name: str, entry: object) -> Parameter:
    """The parameter that `entry` of a spec's space describes.

    Raises:
        ConfigurationError: with all that is wrong with it.
    """
    field = TrainingConfig.model_fields.get(name)
    if field is None:
        hint = did_you_mean(name, TrainingConfig.model_fields)
        raise ConfigurationError(f"space: {name}: no such parameter{hint}")
    if name in NOT_IN_FINGERPRINT or name in _REASONS:
        reason = _REASONS.get(name, "it does not change what is trained; set it in base")
        raise ConfigurationError(f"space: {name}: it cannot vary: {reason}")
    given = {"values": entry} if isinstance(entry, list) else entry
    if not isinstance(given, dict) or not ("values" in given) ^ ("low" in given and "high" in given):
        raise ConfigurationError(
            f"space: {name}: must be a list such as [a, b], or {{low: 1, high: 10}} (log: true, step: 2), or "
            "{values: [a, b], when: {other: value}}"
        )
    data = {str(key): value for key, value in given.items()}
    faults = []
    if isinstance(data.get("when"), dict):
        data["when"] = {
            str(other): tuple(wanted) if isinstance(wanted, list) else (wanted,)
            for other, wanted in data["when"].items()
        }
    numeric = _numeric_kind(name)
    if "low" in data:
        if numeric is None:
            raise ConfigurationError(f"space: {name}: it is no number, so it has no range; give a list")
        data["kind"] = numeric
    try:
        parameter = Parameter.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(
            [f"space: {name}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        ) from None
    faults = list(_list_faults(parameter) if parameter.low is None else _range_faults(parameter))
    if faults:
        raise ConfigurationError([f"space: {name}: {fault}" for fault in faults])
    if parameter.low is None:
        # 0.1 and 0.10, or 15,25 and [15, 25], are one value.
        typed = [as_option(_typed(name, value)) for value in parameter.values]
        twice = sorted({text for text in typed if typed.count(text) > 1})
        if twice:
            raise ConfigurationError(f"space: {name}: {', '.join(twice)} stands more than once in the list")
    return parameter


def _numeric_kind(name: str) -> Literal["integer", "number"] | None:
    schema = TrainingConfig.model_json_schema()["properties"][name]
    kinds = {part.get("type") for part in (schema, *schema.get("anyOf", ()))}
    if "integer" in kinds:
        return "integer"
    return "number" if "number" in kinds else None


def _typed(name: str, value: object) -> object:
    try:
        return getattr(TrainingConfig.model_validate({name: value}), name)
    except ValidationError:  # reported with the faults of the combinations
        return value


def value_faults(name: str, value: object) -> list[str]:
    """What is wrong with the value by itself, whatever else is chosen."""
    try:
        TrainingConfig.model_validate({name: value})
    except ValidationError:
        try:
            resolve({name: value})
        except ConfigurationError as error:
            return error.faults
    return []


def _list_faults(parameter: Parameter) -> Iterator[str]:
    if not parameter.values:
        yield "the list is empty"
    if parameter.log or parameter.step is not None:
        yield "log and step belong to a range {low, high}, not to a list"


def _range_faults(parameter: Parameter) -> Iterator[str]:
    low, high, step = parameter.low or 0.0, parameter.high or 0.0, parameter.step
    if low >= high:
        yield f"the range is {'empty' if low == high else 'reversed'}: low {low:g} must be below high {high:g}"
    if parameter.log and low <= 0:
        yield f"a logarithmic range needs a low above 0, and has {low:g}"
    if parameter.log and step is not None:
        yield "log and step exclude each other"
    if step is not None and (step <= 0 or (parameter.kind == "integer" and step != round(step))):
        yield f"step {step:g} must be {'a whole number ' if parameter.kind == 'integer' else ''}above 0"
    if parameter.kind == "integer" and (low != round(low) or high != round(high)):
        yield f"the ends {low:g} and {high:g} must be whole numbers"


def condition_faults(space: Mapping[str, Parameter], named: Sequence[str]) -> list[str]:
    """Conditions on what does not vary (`named` is all that the spec lists), on values never taken, and circles."""
    faults = []
    for name, parameter in space.items():
        for other, wanted in parameter.when.items():
            if other not in named:
                faults.append(f"space: {name}: when: {other} is not in the space")
            elif other in space and space[other].is_countable:
                offered = {as_option(value) for value in space[other].choices()}
                faults += [
                    f"space: {name}: when: {other} is never {as_option(value)}"
                    for value in wanted
                    if as_option(value) not in offered
                ]
    if len(_ordered(space)) < len(space):
        circle = sorted(set(space) - set(_ordered(space)))
        faults.append(f"space: {', '.join(circle)}: their conditions wait for each other")
    return faults


def _ordered(space: Mapping[str, Parameter]) -> list[str]:
    """The parameters, each after those that its condition names; those in a circle are left out."""
    order: list[str] = []
    while True:
        ready = [
            name
            for name, parameter in space.items()
            if name not in order and all(other in order or other not in space for other in parameter.when)
        ]
        if not ready:
            return order
        order.append(ready[0])


def ordered(space: Mapping[str, Parameter]) -> list[tuple[str, Parameter]]:
    """The parameters in the order in which they can be chosen."""
    return [(name, space[name]) for name in _ordered(space)]


def combinations(space: Mapping[str, Parameter], choices: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the `choices`, without those parameters whose condition does not hold."""
    parameters = ordered(space)

    def extend(values: dict[str, Any], position: int) -> Iterator[dict[str, Any]]:
        if position == len(parameters):
            yield values
            return
        name, parameter = parameters[position]
        if not parameter.applies(values):
            yield from extend(values, position + 1)
            return
        for value in choices[name]:
            yield from extend({**values, name: value}, position + 1)

    return extend({}, 0)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two spaces as they stand in specs, except values added to a list."""
    told = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, list) and isinstance(new, list):
            gone = [as_option(value) for value in old if value not in new]
            told += [f"space: {name}: {', '.join(gone)} is gone"] if gone else []
        elif isinstance(old, dict) and isinstance(new, dict) and "values" in old and old.get("when") == new.get("when"):
            told += changes({name: old["values"]}, {name: new.get("values")})
        elif old != new:
            told.append(f"space: {name}: was {old or 'not given'}, is {new or 'not given'}")
    return told
