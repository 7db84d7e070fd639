"""A folder of images as a dataset: read whole and checked, all that is wrong told together, and split.

Images that `folder_tree` finds are decoded by `image_files`, as `predict` does, and kept by `decoded_files`. Where the
folder has no test or validation part, an image belongs to it by a hash of its file's bytes and the seed of the split:
it stays in its part, whatever is added to the folder or renamed there.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import duplicates, folder_tree, splitting
from cifar_mlflow.learning.data.decoded_files import Bar, DecodedFiles, decoded, measured
from cifar_mlflow.learning.data.folder_tree import Tree, some
from cifar_mlflow.learning.data.image_files import Skipped
from cifar_mlflow.text import count, printable

LARGEST_AUTO_SIZE = 64  # pixels a side that are taken without being asked for
AUTO_TEST_SHARE, AUTO_VALIDATION_SHARE = 0.15, 0.1
MEMORY_SHARE = 0.9  # of what is free, that the images may take
PAIRS_NAMED = 20
PARTS = ("train", "validation", "test")


@dataclass
class FolderImages:
    """The images of a folder, by part, and all that is wrong or worth telling of it.

    `rows` are the positions of a part's images among the files of the `tree`, in order; `pixels` is uint8 (n, height,
    width, channels) of each part, and empty where nothing could be decoded. What is named is a path in the folder.
    """

    tree: Tree
    faults: list[str]
    warnings: list[str]
    size_fault: str = ""
    """Why the size of the images must be said, if it must."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many images have which (width, height) of their own."""
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    digests: np.ndarray = field(default_factory=lambda: np.empty((0, 16), np.uint8))
    """uint8 (files, 16), of the pixels of each file."""
    skipped: list[Skipped] = field(default_factory=list)
    same: list[list[str]] = field(default_factory=list)
    """Files with one and the same image."""
    near: list[tuple[str, str]] = field(default_factory=list)
    """Files in two parts or classes with almost the same image."""

    def __post_init__(self) -> None:
        self.names = [printable(file.path) for file in self.tree.files]
        self.file_labels = np.array([file.label for file in self.tree.files], dtype=np.int64)

    def labels(self, part: str) -> np.ndarray:
        """int64 (n), of the part's images."""
        labels: np.ndarray = self.file_labels[self.rows[part]]
        return labels

    def counts(self, part: str) -> np.ndarray:
        """How many images of each class the part has; none if nothing could be decoded."""
        labels = self.labels(part) if part in self.rows else np.empty(0, np.int64)
        return np.bincount(labels, minlength=len(self.tree.classes))


def read(config: TrainingConfig, bar: Bar) -> FolderImages:
    """The folder that `config.dataset` names, split; DataError with everything that is wrong with it."""
    return _refused_if_faulty(examine(config, bar))


def examine(config: TrainingConfig, bar: Bar) -> FolderImages:
    """As `read`, with what is wrong among the results."""
    tree = folder_tree.scan(Path(config.dataset))
    found = FolderImages(tree, [*tree.faults], [*tree.left_out])
    if tree.files:
        _decode(found, _chosen_shape(found, config, bar), config, bar)
    return found


def read_test(path: str, classes: Sequence[str], shape: tuple[int, int, int], bar: Bar) -> FolderImages:
    """The images of DIR/test/CLASS/*, or else DIR/CLASS/*, as a model of these `classes` and this `shape` takes them.

    Labels are positions in the folder's own classes. Raises DataError as `read`, and if the model lacks a class.
    """
    tree = folder_tree.scan(Path(path), test_alone=True)
    found = FolderImages(tree, [*tree.faults], [*tree.left_out])
    if unknown := [name for name in tree.classes if name not in classes]:
        found.faults.append(f"{some(unknown)}: no class of the model, which has {some(classes)}")
    if tree.files:
        _decode(found, shape, None, bar)
    return _refused_if_faulty(found)


def _refused_if_faulty(found: FolderImages) -> FolderImages:
    if faults := [*found.faults, *filter(None, [found.size_fault])]:
        told = "".join(f"\n  - {fault}" for fault in faults)
        raise DataError(f"{found.tree.root}: this folder of images cannot be used:{told}")
    return found


def _decode(found: FolderImages, shape: tuple[int, int, int], config: TrainingConfig | None, bar: Bar) -> None:
    """Fills in all that is known once the files are decoded; without `config` all of them are test images."""
    if _is_too_large(found, len(found.names), (*shape[:2], 1)):
        return
    asked_for = None if config else shape[2]
    for _ in range(2):
        with decoded(found.tree.root, found.tree.files, shape, bar, found.warnings) as table:
            readable = np.flatnonzero(table.reason == "")
            channels = asked_for or (1 if table.gray[readable].all() else 3)
            if not found.rows:
                _sort_out(found, table, readable, config)
                if _is_too_large(found, len(readable), (*shape[:2], channels)):
                    return
            try:
                found.pixels = {part: table.pixels(found.rows[part], channels) for part in PARTS}
            except (OSError, ValueError):  # another process, or the disk, has lost what was written: once more
                table.remove()
            else:
                _find_near(found, table.perceptual_hash)
                return
    raise DataError(f"{found.tree.root}: the disk does not give back the decoded images as they were written")


def _sort_out(found: FolderImages, table: DecodedFiles, readable: np.ndarray, config: TrainingConfig | None) -> None:
    found.digests, found.sizes = table.pixel_digest, Counter(map(tuple, table.size[readable].tolist()))
    unread = np.flatnonzero(table.reason != "").tolist()
    found.skipped = [Skipped(found.names[row], str(table.reason[row])) for row in unread]
    if config and config.skip_unreadable and unread:
        found.warnings.append(f"left out: {count(len(unread), 'file')} that cannot be read: {_named(found, unread)}")
    else:
        found.faults += [f"{each.name}: {each.reason}" for each in found.skipped]
    side = min(table.shape[:2])
    small = readable[table.size[readable].min(axis=1) < side].tolist()
    if 0 < len(small) < len(readable):  # if all are, it was meant
        found.warnings.append(f"enlarged to {side} pixels a side: {count(len(small), 'image')}: {_named(found, small)}")
    if config:
        found.rows = _split(found, table.digest, readable, config)
        _check_parts(found)
    else:
        found.rows = {"train": readable[:0], "validation": readable[:0], "test": readable}
        if len(readable) < 2:
            found.faults.append(f"it has {count(len(readable), 'image')} that can be read; needed are at least 2")
    _find_same(found)


def _named(found: FolderImages, rows: Sequence[int]) -> str:
    return some([found.names[row] for row in rows])


# --------------------------------------------------------------------------------------------------- size and memory


def _chosen_shape(found: FolderImages, config: TrainingConfig, bar: Bar) -> tuple[int, int, int]:
    """As asked for, or the shape that all images have; else the largest auto size, and `size_fault` says what to do."""
    if config.image_size != "auto":
        return config.image_size, config.image_size, 3
    sizes = Counter(filter(None, measured(found.tree.root, found.tree.files, bar)))
    largest, smallest = LARGEST_AUTO_SIZE, 4
    if len(sizes) == 1 and smallest <= min(next(iter(sizes))) and max(next(iter(sizes))) <= largest:
        ((width, height),) = sizes
        return height, width, 3
    if sizes:
        common = [f"{width} x {height} ({number:,})" for (width, height), number in sizes.most_common()]
        what = "all images have" if len(sizes) == 1 else f"the images have {len(sizes):,} sizes:"
        found.size_fault = (
            f"--image-size: say how many pixels a side the images shall have, such as {largest}; {what} "
            f"{some(common, 5)}, and auto takes one size of {smallest} to {largest} that all have"
        )
    return largest, largest, 3


def _is_too_large(found: FolderImages, images: int, shape: tuple[int, int, int]) -> bool:
    """Whether the images do not fit into memory; if so, that is a fault, with the sizes that would."""
    free = MEMORY_SHARE * psutil.virtual_memory().available
    height, width, channels = shape
    if images * math.prod(shape) <= free:
        return False
    side = math.isqrt(int(free / (images * channels)))
    remedy = f"--image-size {side} or less would fit" if side >= 4 else "no --image-size would fit: take fewer images"
    found.faults.append(
        f"--image-size: {images:,} images of {height} x {width} x {channels} bytes take "
        f"{images * math.prod(shape) / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are free; {remedy}"
    )
    return True


# -------------------------------------------------------------------------------------------------------------- split


def _split(
    found: FolderImages, digests: np.ndarray, readable: np.ndarray, config: TrainingConfig
) -> dict[str, np.ndarray]:
    """The positions of each part's images; `digests` are of the files."""
    parts = np.array([file.part or "train" for file in found.tree.files])
    rows = {part: readable[parts[readable] == part] for part in PARTS}

    def take_out(part: str, size: float | int) -> None:
        train = rows["train"]
        drawn = splitting.draw(digests[train], config.split_seed, part)
        chosen = splitting.choose(drawn, found.file_labels[train], size)
        rows["train"], rows[part] = train[~chosen], train[chosen]

    given, test_size = {file.part for file in found.tree.files}, config.test_size
    if "test" not in given:
        take_out("test", AUTO_TEST_SHARE if test_size == "auto" else test_size)
    elif config.test_size != "auto":
        found.warnings.append(f"--test-size {config.test_size} has no effect: the folder has test images of its own")
    if "validation" not in given:
        if config.validation_size != 0:
            size = config.validation_size
            take_out("validation", AUTO_VALIDATION_SHARE if size == "auto" else size)
    elif config.validation_size == 0:
        rows["train"] = np.sort(np.concatenate([rows["train"], rows["validation"]]))
        rows["validation"] = rows["validation"][:0]
        found.warnings.append("--validation-size 0 trains on the validation images of the folder too")
    elif config.validation_size != "auto":
        found.faults.append(
            f"--validation-size: {config.validation_size} is refused: the folder has {len(rows['validation']):,} "
            "validation images of its own; give auto, or 0 to train on them too"
        )
    draws = "test" not in given or ("validation" not in given and config.validation_size != 0)
    if config.split_seed and not draws and config.folds == "none":
        found.warnings.append("--split-seed has no effect: no images of the folder are drawn")
    return rows


def _check_parts(found: FolderImages) -> None:
    """What the parts lack: a class to train on is a fault, one to score a warning."""
    classes = found.tree.classes
    empty = {part: [classes[label] for label in np.flatnonzero(found.counts(part) == 0)] for part in PARTS}
    there = {classes[file.label] for file in found.tree.files if file.part in ("", "train")}
    if unread := [name for name in empty["train"] if name in there]:  # a class without files was told of before
        found.faults.append(f"no image is left to train on of the class {some(unread)}")
    for part in ("validation", "test"):
        if (number := len(found.rows[part])) and empty[part]:
            found.warnings.append(f"none of the {number:,} {part} images is of the class {some(empty[part])}")
    for part in ("train", "test"):
        if len(found.rows[part]) < 2:
            found.faults.append(f"it has {count(len(found.rows[part]), f'{part} image')}; needed are at least 2")


# --------------------------------------------------------------------------------------------------------- duplicates


def _groups(found: FolderImages) -> np.ndarray:
    """A number for each file: two have the same if they are of one part and class; -1 of what is in no part."""
    groups = np.full(len(found.names), -1)
    for number, part in enumerate(PARTS):
        groups[found.rows[part]] = number * len(found.tree.classes) + found.labels(part)
    return groups


def _find_same(found: FolderImages) -> None:
    used = np.sort(np.concatenate([*found.rows.values()]))
    groups = _groups(found)
    faulty = []
    for same in duplicates.same_groups(found.digests[used]):
        rows = used[same].tolist()
        found.same.append([found.names[row] for row in rows])
        if len({groups[row] for row in rows}) > 1:
            what = "two classes" if len({found.file_labels[row] for row in rows}) > 1 else "two parts"
            faulty.append(f"one image in {what}: {some(found.same[-1])}")
    more = [f"and {len(faulty) - PAIRS_NAMED:,} more images in two places: cifar-mlflow data tells of all"]
    found.faults += faulty[:PAIRS_NAMED] + (more if len(faulty) > PAIRS_NAMED else [])


def _find_near(found: FolderImages, hashes: np.ndarray) -> None:
    rows = np.concatenate([found.rows[part] for part in PARTS])
    images = [image for part in PARTS for image in found.pixels[part]]
    pairs = duplicates.near_pairs(hashes[rows], images, _groups(found)[rows])
    found.near = [(found.names[rows[first]], found.names[rows[second]]) for first, second in pairs]
    if found.near:
        pairs_named = [f"{first} and {second}" for first, second in found.near]
        found.warnings.append(
            f"{count(len(found.near), 'pair')} of almost the same image in two parts or classes: {some(pairs_named, 5)}"
        )
