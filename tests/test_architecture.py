"""Imports go one way: from the command line down to the ground, and within each wing from floor to floor."""

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cifar_mlflow"
GROUND = {"errors", "text", "records", "directories", "memory", "tables", "process_state"}
BASE = GROUND | {"config"}
WINGS = {"learning", "tracking", "tuning", "analysis"}
# What a part of the package may import, besides itself.
PARTS = {
    "text": set(),
    "records": set(),
    "process_state": set(),
    "errors": {"text"},
    "tables": {"text"},
    "directories": {"errors"},
    "memory": {"errors", "text"},
    "config": GROUND,
    **dict.fromkeys(WINGS, BASE),
    "jobs": BASE | WINGS,
    "cli": BASE | {"jobs"},
    "interface": BASE | {"jobs", "learning", "analysis", "tracking"},  # of the wings, only what results are made of
    "__main__": {"cli"},
    "": {"interface"},
}
# What a room of a wing may import of its own wing, besides itself. A room is a folder, or a file beside the folders.
ROOMS = {
    "config": {
        "yaml_files": set(),
        "faults": set(),
        "training": {"faults"},
        "paths": {"training"},
        "rules": {"faults", "paths", "training"},
        "search_space": {"faults", "rules", "training"},
        "sweep_changes": {"sweep"},
        "sweep": {"faults", "paths", "rules", "search_space", "training", "yaml_files"},
    },
    "learning": {
        "hardware": set(),
        "data": set(),
        "compiled": set(),
        "batches": set(),
        "stopping": set(),
        "checkpoint_files": set(),
        "networks": {"data", "compiled", "hardware"},
        "optimizers": {"hardware"},
        "evaluation": {"data", "hardware"},
        "export": {"compiled", "networks"},
        "training": {"batches", "compiled", "data", "evaluation", "hardware", "networks", "optimizers", "stopping"},
        "check": {"data", "export", "hardware", "networks", "training"},
    },
    "tracking": {
        "retry": set(),
        "access": set(),
        "processes": set(),
        "uris": set(),
        "store": {"retry", "access", "uris"},
        "queries": {"store"},
        "writing": {"store", "queries", "processes"},
        "outbox": {"store", "queries", "writing"},
        "registry": {"store", "queries", "processes", "writing"},
        "reading": {"store", "queries", "access", "retry", "uris", "processes", "writing", "outbox", "registry"},
    },
    "tuning": {
        "study": set(),
        "executors": set(),
        "process_executor": {"executors"},
        "fork_server": {"process_executor"},
        "worker_checks": set(),
        "ray_cluster": set(),
        "ray_worker": {"executors", "process_executor", "worker_checks"},
        "ray_executor": {"executors", "process_executor", "ray_cluster", "ray_worker", "worker_checks"},
    },
    "analysis": {
        "statistics": set(),
        "classification": set(),
        "contact_sheet": set(),
        "paired": set(),
        "gates": {"paired", "statistics"},
        "calibration": {"classification"},
        "mislabelled": set(),
        "plots": {"calibration", "comparison"},
        "comparison": {"plots", "statistics"},
        "reproduction": {"comparison"},
    },
    "jobs": {
        "listener": set(),
        "console": {"listener", "sweeping", "training"},
        "training": {"listener"},
        "sweeping": {"listener", "console", "training", "train", "sync"},
        "promotion": {"listener"},
        "browsing": {"listener"},
        "health": {"listener", "sync"},
    },
}
# Whoever reads a job reads one file: it may import what stands in the folders, and of the other jobs these.
JOBS_OF_JOBS = {
    "train": {"sync"},
    "resume": {"train"},
    "reproduce": {"train"},
    "sweep": {"sync"},
    "promote": {"evaluate"},
    "models": {"evaluate"},
}
# Packages that a part of the package must not know.
FOREIGN = {
    "learning": {"mlflow", "optuna"},
    "tracking": {"torch", "torchvision", "optuna"},
    "tuning": {"torch", "torchvision", "mlflow"},
    "analysis": {"torch", "torchvision", "mlflow", "optuna"},
    "config": {"torch", "torchvision", "mlflow", "optuna", "click"},
    "jobs": {"click"},
}


def sources() -> dict[str, str]:
    """Dotted name of each module, without the package's own, and its text."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").rstrip(".")] = path.read_text(encoding="utf-8")
    return found


@functools.cache
def imports(text: str) -> list[str]:
    """Every module that a module imports, within functions too; `from a import b` counts as a.b."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def module_of(name: str, modules: dict[str, str]) -> str | None:
    """The module of the package that an imported name is, or is in; None if it is none of the package's."""
    top, _, rest = name.partition(".")
    if top != "cifar_mlflow":
        return None
    while rest and rest not in modules:
        rest = rest.rpartition(".")[0]
    return rest


def part_and_room(module: str) -> tuple[str, str]:
    part, _, rest = module.partition(".")
    return part, rest.partition(".")[0]


def fault(module: str, other: str) -> str | None:
    """Why `module` must not import `other`; None if it may."""
    part, room = part_and_room(module)
    other_part, other_room = part_and_room(other)
    if other == "" or module == other:  # the package's version
        return None
    if part != other_part:
        return None if other_part in PARTS[part] else f"{part} is below or beside {other_part}"
    if part not in ROOMS or room in (other_room, "") or other_room == "":
        return None
    if part == "jobs" and room not in ROOMS["jobs"]:
        allowed = set(ROOMS["jobs"]) | JOBS_OF_JOBS.get(room, set())
    else:
        allowed = ROOMS[part].get(room, set())
    return None if other_room in allowed else f"within {part}, {room} is below or beside {other_room}"


def faults(modules: dict[str, str]) -> list[str]:
    told = []
    for module, text in modules.items():
        for name in imports(text):
            other = module_of(name, modules)
            if other is None:
                part, top = module.partition(".")[0], name.partition(".")[0]
                why = f"{part} knows nothing of {top}" if top in FOREIGN.get(part, set()) else None
            else:
                why = fault(module, other)
            if why:
                told.append(f"{module} imports {name}: {why}")
    return told


def circles(modules: dict[str, str]) -> list[str]:
    """Modules that import each other, directly or by way of others; what serves type checking alone counts too."""
    graph = {module: {module_of(name, modules) for name in imports(text)} for module, text in modules.items()}
    arrows = {(module, other) for module, others in graph.items() for other in others if other and other != module}
    while True:
        # What nothing imports, or what imports nothing that is left, stands in no circle.
        within = {arrow for arrow in arrows if arrow[0] in {to for _, to in arrows}}
        within = {arrow for arrow in within if arrow[1] in {start for start, _ in within}}
        if within == arrows:
            return sorted({module for module, _ in arrows})
        arrows = within


def test_imports_go_one_way():
    assert faults(sources()) == []


def test_no_modules_import_each_other():
    assert circles(sources()) == []


@pytest.mark.parametrize("wing", ROOMS)
def test_every_room_has_its_floor(wing):
    rooms = {part_and_room(module)[1] for module in sources() if part_and_room(module)[0] == wing} - {""}
    assert set(ROOMS[wing]) <= rooms
    if wing != "jobs":
        assert rooms <= set(ROOMS[wing])


PLANTED = {
    "a wing imports another": ("learning.evaluation", "from cifar_mlflow.tracking import store"),
    "a wing imports a job": ("tracking.store", "from cifar_mlflow.jobs.train import train"),
    "a job imports the command line": ("jobs.train", "from cifar_mlflow.cli import main"),
    "the command line imports a wing": ("cli.training", "import cifar_mlflow.tracking.store"),
    "the configuration imports a wing": ("config.sweep", "from cifar_mlflow.tuning import study"),
    "the ground imports the configuration": ("text", "from cifar_mlflow.config import training"),
    "a job imports a job that it is not named with": ("jobs.evaluate", "from cifar_mlflow.jobs import train"),
    "a helper of jobs imports a job": ("jobs.training.record", "from cifar_mlflow.jobs.train import train"),
    "training's data import training": (
        "learning.data.datasets",
        "from cifar_mlflow.learning.training import Training",
    ),
    "networks import optimizers": ("learning.networks.build", "from cifar_mlflow.learning.optimizers import build"),
    "writing imports reading": ("tracking.writing.recorder", "from cifar_mlflow.tracking.reading import runs"),
    "the store imports the outbox": ("tracking.store", "from cifar_mlflow.tracking.outbox import worker"),
    "the registry imports reading": ("tracking.registry.lease", "from cifar_mlflow.tracking.reading import runs"),
    "statistics import comparison": ("analysis.statistics", "from cifar_mlflow.analysis.comparison import verdicts"),
    "the fields import the rules": ("config.training", "from cifar_mlflow.config import rules"),
    "learning imports MLflow": ("learning.export", "def f():\n    import mlflow.pytorch"),
    "tracking imports torch": ("tracking.writing.model_files", "from torch import nn"),
    "tuning imports MLflow": ("tuning.study", "import mlflow"),
    "analysis imports torch": ("analysis.classification", "import torch"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_forbidden_import_is_noticed(planted):
    module, line = PLANTED[planted]
    modules = sources()
    modules[module] += f"\n{line}\n"
    assert [told for told in faults(modules) if told.startswith(f"{module} imports")]


def test_a_circle_is_noticed():
    modules = sources()
    modules["text"] += "\nfrom cifar_mlflow import directories\n"
    modules["directories"] += "\nfrom cifar_mlflow import text\n"
    assert {"text", "directories"} <= set(circles(modules))


@pytest.mark.parametrize("top", ["cifar_mlflow", "tests"])
def test_every_room_can_be_held_in_the_head(top):
    files = list((PACKAGE.parent / top).rglob("*.py"))
    long = {str(path): count for path in files if (count := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    full = {str(folder): count for folder, count in Counter(path.parent for path in files).items() if count > 16}
    assert files
    assert (long, full) == ({}, {})


def test_the_picture_of_the_rooms_has_every_file():
    text = (PACKAGE.parent / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"```\ncifar_mlflow/\n(.*?)```", text, re.DOTALL)
    words = set(re.findall(r"\w+", tree[1]))
    files = {name for module in sources() for name in module.split(".") if name} - {"__main__"}
    assert files <= words
    assert set(re.findall(r"\b\w+(?=\.py\b)", tree[1])) <= files
