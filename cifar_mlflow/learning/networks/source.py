"""The source of the user's own network, by which a run is known and from which it can be done again."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

from cifar_mlflow.config.training import BUILT_IN_NETWORKS, TORCHVISION

# By directory and name: the module as it was imported when its source was read (None: not yet), and the source.
_read: dict[tuple[str, str], tuple[ModuleType | None, "Source"]] = {}


@dataclass(frozen=True)
class Source:
    """The files of one network, by their path below the directory from which they are imported; `digest` is of all."""

    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """32 hex digits."""
        total = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            total.update(f"{name}\n{len(content)}\n".encode() + content)
        return total.hexdigest()[:32]


def of(network: str) -> Source | None:
    """The module that `network` (package.module:function) names, and what it imports beside itself; None for ours
    and torchvision's.

    That is every module, found in the same directory or the same package, which it names in an import statement, and
    so on from each of these; not this package, which the commit tells. For an installed package stand the module's own
    file and a requirements.txt with the package's version. What is no file in a directory is left out.

    What this process has imported is told as it was then, since an edit has no effect on it any more.
    """
    if network in BUILT_IN_NETWORKS or network.startswith(TORCHVISION):
        return None
    name = network.partition(":")[0]
    module, key = sys.modules.get(name), (os.getcwd(), name)
    looked_at, source = _read.get(key, (None, None))
    if source is None or module is None or looked_at not in (None, module):
        source = Source(dict(_files(name)))
    _read[key] = module, source
    return source


def edited(network: str) -> list[str]:
    """The files that are no longer what this process has imported."""
    source = of(network)
    if source is None:
        return []
    now = dict(_files(network.partition(":")[0]))
    return [name for name, content in source.files.items() if now.get(name) != content]


def _files(name: str) -> Iterator[tuple[str, bytes]]:
    root, top = _root(name), name.partition(".")[0]
    if root is None:
        return
    installed = not {"site-packages", "dist-packages"}.isdisjoint(root.parts)
    if installed:
        distributions = importlib.metadata.packages_distributions().get(top, [])
        pinned = [f"{each}=={importlib.metadata.version(each)}\n" for each in sorted(set(distributions))]
        yield "requirements.txt", "".join(pinned).encode()
    waiting, seen = [name], set()
    while waiting:
        module = waiting.pop()
        for path in _paths(root, module):
            if path in seen:
                continue
            seen.add(path)
            content = (root / path).read_bytes()
            yield path.as_posix(), content
            if not installed:
                inner = path.with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
                waiting += _imports(content, inner, is_package=path.name == "__init__.py")


def _root(name: str) -> Path | None:
    """The directory from which the module is imported; None if it is in none."""
    here = os.getcwd()  # see `own.build`
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        spec = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):  # a module that was made by hand
        return None
    finally:
        if added:
            sys.path.remove(here)
    if spec is None:
        return None
    # A package without __init__.py may be spread over several directories.
    places = spec.submodule_search_locations or ([spec.origin] if spec.has_location and spec.origin else [])
    roots = [Path(place).absolute().parent for place in places]
    return next((root for root in roots if any(_paths(root, name))), None)


def _paths(root: Path, module: str) -> Iterator[PurePosixPath]:
    """The file of a module below `root`, and those of the packages around it, which are run before."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        place = PurePosixPath(*parts[:depth])
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if (root / path).is_file():
                yield path
                break


def _imports(content: bytes, module: str, *, is_package: bool) -> Iterator[str]:
    """What `module` may import, within functions too: modules, and names in them that may be modules."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # told when it is imported
        return
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            around = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*around, *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.strip(".") and name.partition(".")[0] != "cifar_mlflow")
