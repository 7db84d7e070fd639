"""A folder of images as it stands on disk: its parts, classes and files, and what is wrong with them.

    DIR/train/CLASS/*  DIR/test/CLASS/*  DIR/val/CLASS/*      parts that are given (test and val may be missing)
    DIR/CLASS/*                                               or none, if there is no DIR/train

- A class is a folder, its images are the files in it and below it that end as image files do (`image_files.SUFFIXES`).
  Classes are sorted by name. There are at most `MOST_CLASSES`.
- The names of the parts may have capitals, and val may be called valid.
- What begins with a dot is hidden, and left out. So are, with a warning, files that are no images, images that lie
  beside the folders of the classes, and in DIR the folders beside the parts.
- Symbolic links are followed. One that leads nowhere, back to where it stands, or to a folder that is read already, is
  a fault: so no folder is without end. Nor is more read after `MOST_FAULTS` of them.
- Names of classes that differ by case alone are a fault, for there are disks on which they are one folder.
"""

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cifar_mlflow.learning.data.image_files import SUFFIXES
from cifar_mlflow.text import NAME_LIMIT, count, did_you_mean, fault, printable, shown

PARTS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}
OTHER_NAMES = {"training", "validation", "testing", "dev", *PARTS}
MOST_CLASSES = 1000  # a confusion matrix of more is too large to be drawn or read
MOST_NAMED = 10
MOST_FAULTS = 1000  # what has more is no folder of images, but something like /proc


@dataclass(frozen=True)
class ImageFile:
    """A file below the folder: its path there, its part (empty if the parts are not given), its class; size and times.

    The times are nanoseconds: when its content changed last, and when anything of it did.
    """

    path: str
    part: str
    label: int
    size: int
    times: tuple[int, int]


@dataclass(frozen=True)
class Tree:
    """All images of the folder, by part, class and path, and everything that is wrong or worth telling of it."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[ImageFile, ...]
    faults: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def parts(self) -> set[str]:
        return {file.part for file in self.files}


def scan(root: Path, *, test_alone: bool = False) -> Tree:
    """What stands in the folder. Nothing is raised: a folder that is not there has this as its fault.

    With `test_alone` nothing else is looked at but DIR/test/CLASS/*, or DIR/CLASS/* if there is no DIR/test.
    """
    return _Scan(root, "test" if test_alone else "train").tree()


class _Scan:
    def __init__(self, root: Path, needed: str) -> None:
        self._root, self._needed = root, needed
        self._faults: list[str] = []
        self._loose: list[str] = []  # images beside the folders of the classes
        self._other: list[str] = []  # files that are no images
        self._beside: list[str] = []  # folders beside the parts
        self._found: dict[tuple[str, str], list[tuple[str, os.stat_result]]] = {}
        self._read: dict[tuple[int, int], str] = {}  # the folders that were read, and as what first
        self._above = {*_identities([root, *Path(os.path.realpath(root)).parents])}

    def tree(self) -> Tree:
        folders = self._folders("")
        if not self._faults:
            parts = self._parts(folders)
            for folder, part in parts.items():
                for name in self._folders(folder) if folder else folders:
                    self._found[part, name] = list(self._images(os.path.join(folder, name)))
            if len(self._faults) < MOST_FAULTS:
                self._faults += self._class_faults(parts)
            else:
                self._faults.append(f"after {MOST_FAULTS:,} faults nothing more was read")
        classes = tuple(self._needed_classes())
        numbers = {name: number for number, name in enumerate(classes)}
        files = tuple(
            ImageFile(path, part, numbers[name], status.st_size, (status.st_mtime_ns, status.st_ctime_ns))
            for (part, name), found in sorted(self._found.items())
            if name in numbers
            for path, status in sorted(found)
        )
        return Tree(self._root, classes, files, tuple(self._faults), tuple(self._told()))

    def _needed_classes(self) -> list[str]:
        """The classes of the part without which nothing can be done, or of the folder if it has no parts."""
        return sorted(name for part, name in self._found if part in ("", self._needed))

    def _entries(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """Path and status of all that stands in the folder and is not hidden, sorted."""
        try:
            with os.scandir(self._root / folder) as found:
                names = sorted(entry.name for entry in found)
        except OSError as error:
            place = f"{printable(folder)}: this folder" if folder else "it"
            of_file = "this is a file; needed is a folder with a folder of images for each class"
            is_file = isinstance(error, NotADirectoryError)
            self._faults.append(of_file if is_file else f"{place} cannot be read: {error.strerror}")
            return
        for name in names:
            path = os.path.join(folder, name)
            if len(self._faults) >= MOST_FAULTS:
                return
            if name.startswith("."):
                continue
            try:
                yield path, os.stat(self._root / path)
            except OSError as error:
                reason = "a link that leads nowhere" if isinstance(error, FileNotFoundError) else error.strerror
                self._faults.append(f"{printable(path)}: it cannot be read: {reason}")

    def _folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder that should hold nothing else."""
        names = []
        for path, status in self._entries(folder):
            if stat.S_ISDIR(status.st_mode):
                names.append(os.path.basename(path))
            else:
                (self._loose if path.lower().endswith(SUFFIXES) else self._other).append(path)
        return names

    def _images(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """The images in a folder and below it."""
        self._above |= {*_identities((self._root / folder).parents)}
        left = [(folder, False)]
        while left:
            here, linked = left.pop()
            try:
                identity = _identity(os.stat(self._root / here))
                linked = linked or os.path.islink(self._root / here)
            except OSError:  # it is gone since it was listed
                continue
            if linked and (told := self._read_before(here, identity)):
                self._faults.append(f"{printable(here)}: this link leads {told}")
                continue
            self._read.setdefault(identity, here)
            for path, status in self._entries(here):
                if stat.S_ISDIR(status.st_mode):
                    left.append((path, linked))
                elif path.lower().endswith(SUFFIXES):
                    yield path, status
                else:
                    self._other.append(path)

    def _read_before(self, here: str, identity: tuple[int, int]) -> str:
        """Where a link leads, if what it leads to is not read again."""
        first = self._read.get(identity)
        if identity in self._above or (first and Path(here).is_relative_to(first)):
            return "back to where it stands"
        return f"to {printable(first)}, which is read already" if first else ""

    def _parts(self, folders: list[str]) -> dict[str, str]:
        """The folders that hold classes, and the part that each is."""
        named = {name: PARTS[name.lower()] for name in folders if name.lower() in PARTS}
        if self._needed not in named.values():
            return {"": ""}
        if self._needed == "test":
            named = {name: part for name, part in named.items() if part == "test"}
        by_part = defaultdict(list)
        for name, part in named.items():
            by_part[part].append(name)
        self._faults += [
            f"{', '.join(sorted(names))}: each would be the {part} part; keep one of them"
            for part, names in by_part.items()
            if len(names) > 1
        ]
        self._beside = sorted(name for name in folders if name.lower() not in PARTS)
        return {names[0]: part for part, names in by_part.items()}

    def _class_faults(self, parts: dict[str, str]) -> Iterator[str]:
        trained = self._needed_classes()
        if not trained:
            place = next((f"{folder}/" for folder, part in parts.items() if part == self._needed), "")
            yield f"{place or 'it'} has no folder with images of a class; put the images of each class into one"
        elif "" in parts and {name.lower() for name in trained} <= OTHER_NAMES:
            names = f"{', '.join(trained)} would be its classes"
            yield f"{names}; if they are its parts, call them train, test and val, each with a folder for each class"
        elif len(trained) == 1 and self._needed == "train":
            yield f"there is one class, {shown(trained[0])}; needed are at least 2"
        if len(trained) > MOST_CLASSES:
            yield f"there are {len(trained):,} classes; at most {MOST_CLASSES:,} are taken"
            return
        every = {name for _, name in self._found}
        alike = defaultdict(set)
        for name in every:
            alike[unicodedata.normalize("NFC", name).casefold()].add(name)
            if told := fault(name, NAME_LIMIT):
                yield f"{shown(name)}: no class can have this name: {told}"
        for same in alike.values():
            if len(same) > 1:
                yield f"{', '.join(map(shown, sorted(same)))}: the names of these classes differ by case alone"
        for folder, part in parts.items():
            for name in sorted(each for at, each in self._found if at == part):
                place = shown(os.path.join(folder, name))
                if part in ("", "train") and not self._found[part, name]:
                    yield f"{place}: there is no image in it"
                elif name not in trained:
                    hint = printable(did_you_mean(name, trained))
                    yield f"{place}: no class of the training images has this name{hint}"

    def _told(self) -> Iterator[str]:
        for what, why, names in (
            ("image", "beside the folders of the classes", self._loose),
            ("file", "not named as images are", self._other),
            ("folder", "beside the parts", self._beside),
        ):
            if names:
                yield f"left out: {count(len(names), what)} {why}: {some(names)}"


def _identities(folders: Iterable[Path]) -> Iterator[tuple[int, int]]:
    for folder in folders:
        with suppress(OSError):
            yield _identity(folder.stat())


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def some(names: Iterable[str], most: int = MOST_NAMED) -> str:
    """The first of the names, and how many more there are."""
    listed = [*map(printable, names)]
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
