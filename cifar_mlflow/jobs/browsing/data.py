"""What is in a folder of images, told without training on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cifar_mlflow import process_state
from cifar_mlflow.analysis import plots
from cifar_mlflow.config.paths import absolute
from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.listener import bar
from cifar_mlflow.tables import table

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.image_folder import FolderImages

SHEET_CLASSES, SHEET_IMAGES = 50, 12
MOST_LINES = 100  # of each kind, as text
PER_CLASS = ("class", "train", "validation", "test")


@dataclass(frozen=True)
class DataOutcome:
    """What a folder holds. Files are named as paths in it.

    `classes` has a row a class: its name and how many images it has to train on, to validate and to test. `sizes` maps
    the (width, height) that images have of their own to how many do. `same` are files with one and the same image,
    `near` pairs of almost the same image in two parts or classes. A run is refused with the `faults`, and warns with
    the `warnings`.
    """

    directory: str
    classes: list[dict[str, str | int]]
    sizes: dict[tuple[int, int], int]
    faults: list[str]
    warnings: list[str]
    same: list[list[str]]
    near: list[tuple[str, str]]
    contact_sheet: bytes | None
    """A PNG with images of each class that are trained on; None if it was not asked for, or there are none."""

    def document(self) -> dict[str, object]:
        """Everything but the contact sheet, for JSON."""
        sizes = [{"width": width, "height": height, "images": images} for (width, height), images in self.sizes.items()]
        return {**{name: value for name, value in vars(self).items() if name != "contact_sheet"}, "sizes": sizes}


@process_state.preserved()
def data(directory: str, options: Mapping[str, object] | None = None, *, contact_sheet: bool = False) -> DataOutcome:
    """What is in the folder `directory`; `options` are those of train that say how it is read and split.

    Raises:
        ConfigurationError: an option is wrong, no folder is named, or under `mlflow run` the path is relative.
        DataError: neither the cache nor a temporary directory can be written.
    """
    from cifar_mlflow.learning.data import image_folder

    if not directory:
        raise ConfigurationError("DIR: no folder is named", "options")
    config = resolve({"dataset": f"{directory}/", **(options or {})}, "options")
    found = image_folder.examine(config, bar)
    rows = zip(found.tree.classes, *(found.counts(part).tolist() for part in image_folder.PARTS), strict=True)
    return DataOutcome(
        absolute(directory),
        [dict(zip(PER_CLASS, row, strict=True)) for row in rows],
        dict(found.sizes.most_common()),
        [*found.faults, *filter(None, [found.size_fault])],
        found.warnings,
        found.same,
        found.near,
        _contact_sheet(found, config.dataset_name) if contact_sheet and found.pixels else None,
    )


def _contact_sheet(found: FolderImages, name: str) -> bytes | None:
    labels, pixels = found.labels("train"), found.pixels["train"]
    rows = {}
    for label, title in enumerate(found.tree.classes[:SHEET_CLASSES]):
        of_class = np.flatnonzero(labels == label)
        few = of_class[np.linspace(0, len(of_class) - 1, min(SHEET_IMAGES, len(of_class))).astype(int)]
        rows[title] = pixels[few]
    of = f" {SHEET_CLASSES} of" if len(rows) < len(found.tree.classes) else ""
    return plots.contact_sheet(rows, f"{name}:{of} {len(found.tree.classes)} classes, {len(labels):,} training images")


def as_text(outcome: DataOutcome) -> str:
    """All of it for a person who reads: the classes as a table, then what there is to know, then what is wrong."""
    rows = [[str(cell) for cell in row.values()] for row in outcome.classes]
    totals = [str(sum(int(row[part]) for row in outcome.classes)) for part in PER_CLASS[1:]]
    lines = [table([*rows, ["all", *totals]], "lrrr", PER_CLASS), ""] if rows else []
    sizes = [f"{width} x {height} ({images:,})" for (width, height), images in outcome.sizes.items()]
    for what, names in (
        ("sizes", sizes),
        ("the same image", [" = ".join(names) for names in outcome.same]),
        ("almost the same", [f"{first} and {second}" for first, second in outcome.near]),
        ("warning", outcome.warnings),
        ("fault", outcome.faults),
    ):
        lines += [f"{what}: {name}" for name in names[:MOST_LINES]]
        lines += [f"{what}: and {len(names) - MOST_LINES:,} more"] if len(names) > MOST_LINES else []
    return "\n".join(lines)
