"""What may change of a sweep between two of its starts: it can be added to, and run elsewhere."""

from collections.abc import Iterator, Mapping
from typing import Any

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.text import as_option

# What may change between two starts of one sweep: where and how fast it runs, and how much of it. That the data are the
# same, wherever they are, is told by their digest.
_FREE = {("workers",), ("threads",), ("gpus_per_worker",), ("budget",), ("log_models",)} | {
    ("base", name) for name in ("device", "dataset", "data_dir")
}
_GROWING = {("trials",), ("repeats",)}


def changes(before: Mapping[str, Any], now: SweepConfig) -> list[str]:
    """What `now` takes away from or alters in the spec `before`; additions and what is free to change are left out."""
    return list(_differences({"base": {}, **before}, {"base": {}, **now.as_data()}))


def _differences(old: Any, new: Any, *path: str) -> Iterator[str]:
    name = ": ".join(path)
    if path in _FREE or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), *path, key)
    elif path in _GROWING:
        if (old or 1) > (new or 1):
            yield f"{name}: was {old or 1}, is {new or 1}; it can only grow"
    elif path[0] == "space" and "when" not in path and isinstance(old, list) and isinstance(new, list):
        if gone := [as_option(value) for value in old if value not in new]:
            yield f"{name}: {', '.join(gone)} is gone"
    else:
        yield f"{name}: was {'not given' if old is None else old}, is {'not given' if new is None else new}"
