"""Reading the YAML files that users write."""

from pathlib import Path
from typing import Any

import yaml

from cifar_mlflow.errors import ConfigurationError

MOST_VALUES = 100_000  # in a file; the largest of ours has some hundred


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises ConfigurationError if there is no such file, it is no YAML or no mapping, or a key stands twice.
    """
    source = f"file {path}"
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except UnicodeDecodeError:
        raise ConfigurationError("it is not a text file in UTF-8", source) from None
    except OSError as error:
        lost = isinstance(error, FileNotFoundError) and Path(path).parts[:1] == ("experiments",)
        hint = (
            "; experiments/ is part of the repository, not of the installed package: stand in a clone" if lost else ""
        )
        raise ConfigurationError(f"it cannot be read: {error.strerror}{hint}", source) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"it is not valid YAML: {' '.join(str(error).split())}", source) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError("it must hold a mapping, such as `activation: prelu`", source)
    if not _is_small(values):
        raise ConfigurationError(f"its anchors unfold to more than {MOST_VALUES:,} values, or into themselves", source)
    return {str(key): value for key, value in values.items()}


def _is_small(values: object) -> bool:
    """Whether what a file of a few lines refers to again and again stays of a size that can be copied and printed."""
    count, left = 1, [values]
    while left and count <= MOST_VALUES:
        value = left.pop()
        inner = list(value.values()) if isinstance(value, dict) else value
        if isinstance(inner, list | tuple | set):
            count += len(inner)
            left += inner
    return count <= MOST_VALUES


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that stands twice (the last would win in silence)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        # The value of any other node is a list, which can be no member of a set.
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                told = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, told, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
