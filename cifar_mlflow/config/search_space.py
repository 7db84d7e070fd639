"""The space of a sweep: what each parameter may be, and under which condition it matters at all."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from cifar_mlflow.config.faults import describe
from cifar_mlflow.config.training import NOT_IN_FINGERPRINT, TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import as_option, did_you_mean

_REASONS = {
    "seed": "repeats runs each configuration with several seeds",
    "threads": "it is set for the whole sweep, beside workers",
    "epoch_evaluation": "it does not change what is trained; set it in base",
    "folds": "it is set for the whole sweep, beside repeats",
    "split_seed": "runs that hold out different images cannot be compared",
    "test_size": "runs that hold out different images cannot be compared; set it in base",
    "validation_size": "runs that hold out different images cannot be compared; set it in base",
}


def _in_list(wanted: object) -> object:
    return wanted if isinstance(wanted, list | tuple) else [wanted]


class _Conditional(BaseModel):
    """With `when`, a parameter varies only where every other one that is named has one of the values given."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    when: dict[Annotated[str, BeforeValidator(str)], Annotated[tuple[Any, ...], BeforeValidator(_in_list)]] = {}

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition holds among the `values` chosen so far."""
        return all(
            name in values and as_option(values[name]) in map(as_option, wanted) for name, wanted in self.when.items()
        )

    def as_data(self) -> Any:
        """The parameter as it stands in a spec, the condition last."""
        given = self.model_dump(mode="json", exclude={"kind"}, exclude_defaults=True).items()
        return dict(sorted(given, key=lambda item: item[0] == "when"))


class Choice(_Conditional):
    """A parameter that takes the values of a list."""

    kind: Literal["choice"] = "choice"
    values: tuple[Any, ...]

    @property
    def count(self) -> int:
        return len(self.values)

    def choices(self) -> Iterator[Any]:
        return iter(self.values)

    def probes(self) -> Iterator[Any]:
        return self.choices()

    def faults(self) -> Iterator[str]:
        if not self.values:
            yield "the list is empty"

    def as_data(self) -> Any:
        return super().as_data() if self.when else super().as_data()["values"]


class Range(_Conditional):
    """From `low` to `high`, both included: in steps, or evenly, on a logarithmic scale if `log`."""

    kind: Literal["number", "integer"]
    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is of whole numbers, which are one apart where no step is given."""
        return self.kind == "integer"

    @property
    def count(self) -> int | None:
        """The number of values; None for a range that cannot be counted."""
        step = self.step or (1 if self.is_whole else None)
        # From 0.1 to 0.3 in steps of 0.1 are, in binary, a little less than 2 steps. Too many may be infinitely many.
        return None if step is None else 1 + math.floor(min((self.high - self.low) / step, 1e15) + 1e-9)

    def choices(self) -> Iterator[Any]:
        """Every value, lowest first; none for a range that cannot be counted."""
        return (self.cast(self.low + position * (self.step or 1)) for position in range(self.count or 0))

    def probes(self) -> Iterator[Any]:
        """The values whose checks stand for all: both ends."""
        return map(self.cast, (self.low, self.high))

    def cast(self, value: float) -> float | int:
        """`value` as the field has it, without the last bits of a sum of steps."""
        return round(value) if self.is_whole else float(f"{value:.12g}")

    def faults(self) -> Iterator[str]:
        low, high, step = self.low, self.high, self.step
        if low >= high:
            yield f"the range is {'empty' if low == high else 'reversed'}: low {low:g} must be below high {high:g}"
        if self.log and low <= 0:
            yield f"a logarithmic range needs a low above 0, and has {low:g}"
        if self.log and step is not None:
            yield "log and step exclude each other"
        if step is not None and (step <= 0 or (self.is_whole and step % 1)):
            yield f"step {step:g} must be {'a whole number ' if self.is_whole else ''}above 0"
        if self.is_whole and (low % 1 or high % 1):
            yield f"the ends {low:g} and {high:g} must be whole numbers"

    def as_data(self) -> Any:
        return {**super().as_data(), "low": self.cast(self.low), "high": self.cast(self.high)}


Parameter = Annotated[Choice | Range, Field(discriminator="kind")]
_PARAMETER: TypeAdapter[Choice | Range] = TypeAdapter(Parameter)


def parse_parameter(name: str, entry: object) -> Parameter:
    """The parameter that `entry` of a spec's space describes; ConfigurationError with all that is wrong with it."""
    field = TrainingConfig.model_fields.get(name)
    if field is None:
        raise ConfigurationError(f"space: {name}: no such parameter{did_you_mean(name, TrainingConfig.model_fields)}")
    if name in NOT_IN_FINGERPRINT or name in _REASONS:
        reason = _REASONS.get(name, "it does not change what is trained; set it in base")
        raise ConfigurationError(f"space: {name}: it cannot vary: {reason}")
    given = {"values": entry} if isinstance(entry, list) else entry
    if not isinstance(given, dict) or "kind" in given or not ("values" in given) ^ ("low" in given and "high" in given):
        raise ConfigurationError(
            f"space: {name}: must be a list such as [a, b], or {{low: 1, high: 10}} (log: true, step: 2), or "
            "{values: [a, b], when: {other: value}}"
        )
    # A range of a field of whole numbers has whole numbers.
    ranges: dict[Any, str] = {int: "integer", float: "number"}
    kind = "choice" if "values" in given else ranges.get(field.annotation)
    if kind is None:
        raise ConfigurationError(f"space: {name}: it is no number, so it has no range; give a list")
    data = {**{str(key): value for key, value in given.items()}, "kind": kind}
    try:
        parameter = _PARAMETER.validate_python(data)
    except ValidationError as error:
        told = describe(error, {kind: data}, lambda path: f"space: {name}: {': '.join(path[1:])}", _no_such_key)
        raise ConfigurationError(list(told.values())) from None
    if faults := [f"space: {name}: {fault}" for fault in parameter.faults()]:
        raise ConfigurationError(faults)
    return parameter


def value_faults(name: str, parameter: Parameter) -> list[str]:
    """What is wrong with the parameter's values, each by itself, and which of them stand there twice."""
    faults: list[str] = []
    typed = []
    for value in parameter.probes():
        try:
            typed.append(as_option(getattr(TrainingConfig.model_validate({name: value}), name)))
        except ValidationError as error:
            faults += describe(error, {name: value}, lambda path: f"space: {name}").values()
    # 0.1 and 0.10, or 15,25 and [15, 25], are one value.
    if twice := sorted(text for text, times in Counter(typed).items() if times > 1):
        faults.append(f"space: {name}: {', '.join(twice)} stands more than once in the list")
    return faults


def _no_such_key(path: Sequence[str]) -> str:
    what, keys = ("list", "values, when") if path[0] == "choice" else ("range", "low, high, log, step, when")
    return f"a {what} has no such key (it has {keys})"


def condition_faults(space: Mapping[str, Parameter], named: Sequence[str]) -> list[str]:
    """Conditions on what does not vary (`named` is all that the spec lists), on values never taken, and circles."""
    faults = []
    for name, parameter in space.items():
        for other, wanted in parameter.when.items():
            if other not in named:
                faults.append(f"space: {name}: when: {other} is not in the space")
            elif other in space and space[other].count is not None:
                offered = set(map(as_option, space[other].choices()))
                never = [text for text in map(as_option, wanted) if text not in offered]
                faults += [f"space: {name}: when: {other} is never {text}" for text in never]
    if circle := sorted(set(space).difference(name for name, _ in ordered(space))):
        faults.append(f"space: {', '.join(circle)}: their conditions wait for each other")
    return faults


def ordered(space: Mapping[str, Parameter]) -> list[tuple[str, Parameter]]:
    """The parameters, each after those that its condition names; those in a circle are left out."""
    order: dict[str, Parameter] = {}
    waiting = dict(space)
    while ready := [name for name, entry in waiting.items() if waiting.keys().isdisjoint(entry.when)]:
        order[ready[0]] = waiting.pop(ready[0])
    return list(order.items())


def combinations(
    space: Mapping[str, Parameter], values_of: Callable[[Parameter], Iterable[Any]]
) -> Iterator[dict[str, Any]]:
    """Every combination of `values_of` the parameters, without those whose condition does not hold."""

    def extended(found: Iterator[dict[str, Any]], entry: tuple[str, Parameter]) -> Iterator[dict[str, Any]]:
        name, parameter = entry
        for values in found:
            if parameter.applies(values):
                yield from ({**values, name: value} for value in values_of(parameter))
            else:
                yield values

    return reduce(extended, ordered(space), iter([{}]))
