"""What the functions of the interface share: checked arguments, a store, a listener, a process left as it was."""

from __future__ import annotations

import functools
import inspect
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_type_hints

from cifar_mlflow import process_state
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.interface.watching import Watching
from cifar_mlflow.jobs.listener import listening
from cifar_mlflow.memory import enough_memory
from cifar_mlflow.text import shown

if TYPE_CHECKING:
    from cifar_mlflow.learning.training import EpochResult


Weights = Literal["last", "best", "calibrated", "best_calibrated"]
Result = TypeVar("Result")


def refused(name: str, value: object, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: {shown(str(value))} is refused: {reason}", "arguments")


def plain(value: object) -> object:
    """A path as text, and a number of NumPy's or pandas' as Python's; anything else as it is."""
    if isinstance(value, PurePath):
        return str(value)
    item = getattr(value, "item", None)
    return item() if item and getattr(value, "shape", None) == () else value


def checked(job: Callable[..., Result], **narrower: Any) -> Callable[..., Result]:
    """The job, whose arguments must be of the types that its signature says, or of the `narrower` ones.

    ConfigurationError tells of all that are not; an argument that it does not have is a TypeError, as always.
    """

    @functools.wraps(job)
    def called_with(*arguments: Any, **options: Any) -> Result:
        from pydantic import ConfigDict, TypeAdapter, ValidationError

        bound = inspect.signature(job).bind(*arguments, **options)
        types, faults = {**get_type_hints(job), **narrower}, []
        for name, value in bound.arguments.items():
            bound.arguments[name] = plain(value)
            try:
                # In a tuple, since a dataclass by itself may not be given settings.
                wanted: Any = GenericAlias(tuple, (types.get(name, Any),))
                adapter: TypeAdapter[Any] = TypeAdapter(wanted, config=ConfigDict(arbitrary_types_allowed=True))
                adapter.validate_python((bound.arguments[name],), strict=True)
            except ValidationError as error:
                faults += refused(name, value, error.errors()[0]["msg"].replace("Input should", "it must")).faults
        if faults:
            raise ConfigurationError(faults, "arguments")
        return job(*bound.args, **bound.kwargs)

    return called_with


@contextmanager
def called(
    tracking_uri: str | Path | None, progress: bool | None, callback: Callable[[EpochResult], object] | None = None
) -> Iterator[None]:
    """The store and the listener of one call."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself asks for its own
        again = "a worker of a sweep imports this script anew, and comes here again"
        raise ConfigurationError(f"{again}: put what trains below `if __name__ == '__main__':`", "script")
    if not isinstance(tracking_uri, str | Path | None):
        raise refused("tracking_uri", tracking_uri, "it must be text or a path")
    if not isinstance(progress, bool | None):
        raise refused("progress", progress, "it must be True, False or None")
    with process_state.preserved(), listening(Watching(progress, callback)), enough_memory():
        if tracking_uri is not None:
            if isinstance(tracking_uri, Path):
                tracking_uri = f"sqlite:///{tracking_uri.absolute()}"
            process_state.set_variable("MLFLOW_TRACKING_URI", tracking_uri)
        yield
